# What is built and, for what is not, why. A library's folder may set CN2_WHY_NOT_<target>.

function(cn2_tell target name use)
  if(TARGET ${target})
    message(STATUS "  ${name}: built (${use})")
  elseif(CN2_WHY_NOT_${target})
    message(STATUS "  ${name}: not built: ${CN2_WHY_NOT_${target}}")
  else()
    message(STATUS "  ${name}: not built: ${CN2_ONNXRUNTIME_MISSING}")
  endif()
endfunction()

if(CN2_ONNXRUNTIME_MISSING)
  set(headers "none")
else()
  set(headers "API ${CN2_ONNXRUNTIME_API}, ${CN2_ONNXRUNTIME_INCLUDE}")
endif()
message(STATUS "cn2 ${PROJECT_VERSION}, ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, "
               "${CMAKE_SYSTEM_PROCESSOR}; ONNX Runtime's headers: ${headers}")
cn2_tell(cn2_ort_ops libcn2_ort_ops "custom operators for ONNX Runtime")
cn2_tell(cn2 libcn2 "the C library, plugins/include/cn2.h")
cn2_tell(cn2_kernels_shared libcn2_kernels "for tests only, not installed")
cn2_tell(cn2_kernels_cuda cn2_kernels_cuda "static: CUDA kernels for ${CMAKE_CUDA_ARCHITECTURES}")
