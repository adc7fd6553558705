# TensorRT's headers, as the targets cn2::tensorrt_headers (10) and cn2::tensorrt11_headers; nothing of it is
# linked. They need CUDA's headers too (of a toolkit; a compiler is not needed). What is missing, for the summary:
# CN2_TENSORRT_MISSING and CN2_TENSORRT11_MISSING.
#
# TENSORRT_ROOT, TENSORRT11_ROOT (variables or environment), else what plugins/fetch_tensorrt.py has put into
# plugins/third_party/.

find_package(CUDAToolkit QUIET)

function(cn2_find_tensorrt target root fetched major missing)
  unset(CN2_TENSORRT_INCLUDE CACHE)  # looked for anew each time: the headers may have come or gone
  if(NOT ${root} AND DEFINED ENV{${root}})
    set(${root} $ENV{${root}})
  endif()
  set(places ${PROJECT_SOURCE_DIR}/third_party/${fetched})
  if(${root})
    set(places ${${root}})
  endif()
  find_path(CN2_TENSORRT_INCLUDE NvInferRuntime.h PATHS ${places}
            PATH_SUFFIXES include include/x86_64-linux-gnu include/aarch64-linux-gnu NO_DEFAULT_PATH)
  if(NOT CUDAToolkit_FOUND)
    set(why "no CUDA headers, which TensorRT's need; install the CUDA toolkit")
  elseif(NOT CN2_TENSORRT_INCLUDE AND ${root})
    set(why "no NvInferRuntime.h below ${root}=${${root}}")
  elseif(NOT CN2_TENSORRT_INCLUDE)
    set(why "no NvInferRuntime.h; run python3 plugins/fetch_tensorrt.py, or set ${root}")
  else()
    file(STRINGS ${CN2_TENSORRT_INCLUDE}/NvInferVersion.h line
         REGEX "define (NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) [0-9]+")
    string(REGEX MATCH "[0-9]+" found "${line}")
    if(NOT found EQUAL major)
      set(why "expected headers of TensorRT ${major}, got ${found} in ${CN2_TENSORRT_INCLUDE}")
    endif()
  endif()
  set(${missing} "${why}" PARENT_SCOPE)
  if(NOT why)
    add_library(cn2_${target} INTERFACE)
    add_library(cn2::${target} ALIAS cn2_${target})
    target_include_directories(cn2_${target} SYSTEM INTERFACE ${CN2_TENSORRT_INCLUDE}
                                                              ${CUDAToolkit_INCLUDE_DIRS})
  endif()
endfunction()

cn2_find_tensorrt(tensorrt_headers TENSORRT_ROOT tensorrt10 10 CN2_TENSORRT_MISSING)
cn2_find_tensorrt(tensorrt11_headers TENSORRT11_ROOT tensorrt11 11 CN2_TENSORRT11_MISSING)
