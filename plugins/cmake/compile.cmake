# cn2_compile(TARGET): warnings, sanitizers. cn2_export(TARGET MAP): only what the map names is visible.

function(cn2_compile target)
  if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
    if(CN2_WERROR)
      target_compile_options(${target} PRIVATE -Werror)
    endif()
    if(CN2_SANITIZE)
      target_compile_options(${target} PRIVATE -fsanitize=${CN2_SANITIZE} -fno-sanitize-recover=all
                                               -fno-omit-frame-pointer -g)
      target_link_options(${target} PRIVATE -fsanitize=${CN2_SANITIZE})
    endif()
  endif()
endfunction()

function(cn2_export target map)
  if(UNIX AND NOT APPLE)
    target_link_options(${target} PRIVATE -Wl,--version-script=${map} -Wl,--gc-sections)
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${map})
    if(NOT CN2_SANITIZE)  # a sanitizer's libraries resolve what they leave open at run time
      target_link_options(${target} PRIVATE -Wl,--no-undefined)
    endif()
  endif()
  if(CN2_STATIC_RUNTIME AND NOT CN2_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
  endif()
endfunction()
