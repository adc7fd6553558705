# nvcc, where it is: the CUDA kernels, for every architecture from Turing on and as PTX for later ones.
# CN2_CUDA=OFF leaves them out; CMAKE_CUDA_ARCHITECTURES=86 compiles them for one architecture only.

set(CN2_CUDA_SOURCES collect_ranks.cu proposal_nms.cu detection_nms.cu pyramid_roi_align.cu preprocess.cu
                     resize_linear.cu resize_antialias.cu deform_conv.cu)
option(CN2_CUDA "Compile the CUDA kernels where nvcc is found" ON)

if(CN2_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 75 80-real 86-real 89-real 90-real 100-real 120)
    endif()
    enable_language(CUDA)
  else()
    set(CN2_CUDA_MISSING "no nvcc; install the CUDA toolkit, or name nvcc in CUDACXX")
  endif()
else()
  set(CN2_CUDA_MISSING "CN2_CUDA is OFF")
endif()

# C++17: CMake 3.25 does not know that nvcc 13 can do C++20.
function(cn2_compile_cuda target)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra --threads=2>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${CN2_WERROR}>>:-Werror=all-warnings>)
endfunction()

function(cn2_add_cuda_kernels folder)
  if(CN2_CUDA_MISSING)
    set(CN2_WHY_NOT_cn2_kernels_cuda ${CN2_CUDA_MISSING} PARENT_SCOPE)
    return()
  endif()
  list(TRANSFORM CN2_CUDA_SOURCES PREPEND ${folder}/ OUTPUT_VARIABLE sources)
  add_library(cn2_kernels_cuda STATIC ${sources})
  target_include_directories(cn2_kernels_cuda PUBLIC ${folder}
                                              ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  cn2_compile_cuda(cn2_kernels_cuda)
endfunction()
