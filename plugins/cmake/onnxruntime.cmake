# ONNX Runtime's C header, as the target cn2::onnxruntime_headers; nothing of it is linked.
# Result also in CN2_ONNXRUNTIME_FOUND (what was found, or why not) for the summary.

set(CN2_FETCHED_ONNXRUNTIME ${CMAKE_CURRENT_SOURCE_DIR}/third_party/onnxruntime)
set(CN2_ONNXRUNTIME_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)

if(NOT ONNXRUNTIME_ROOT AND DEFINED ENV{ONNXRUNTIME_ROOT})
  set(ONNXRUNTIME_ROOT $ENV{ONNXRUNTIME_ROOT})
endif()

unset(CN2_ONNXRUNTIME_INCLUDE CACHE)  # looked for anew each time: the header may have come or gone
if(ONNXRUNTIME_ROOT)
  find_path(CN2_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h PATHS ${ONNXRUNTIME_ROOT}
            PATH_SUFFIXES ${CN2_ONNXRUNTIME_SUFFIXES} NO_DEFAULT_PATH)
else()
  find_path(CN2_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h PATHS ${CN2_FETCHED_ONNXRUNTIME}
            NO_DEFAULT_PATH)
  find_path(CN2_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h
            PATH_SUFFIXES onnxruntime onnxruntime/core/session)
endif()

if(CN2_ONNXRUNTIME_INCLUDE)
  set(CN2_ONNXRUNTIME_FOUND ${CN2_ONNXRUNTIME_INCLUDE})
  file(STRINGS ${CN2_ONNXRUNTIME_INCLUDE}/onnxruntime_c_api.h line REGEX "define ORT_API_VERSION ")
  string(REGEX MATCH "[0-9]+" CN2_ONNXRUNTIME_API "${line}")
  if(NOT CN2_ONNXRUNTIME_API OR CN2_ONNXRUNTIME_API LESS 17)
    set(CN2_ONNXRUNTIME_MISSING
        "expected ONNX Runtime's header with ORT_API_VERSION 17 or newer, got \
'${CN2_ONNXRUNTIME_API}' in ${CN2_ONNXRUNTIME_INCLUDE}; install a newer one")
  endif()
elseif(ONNXRUNTIME_ROOT)
  set(CN2_ONNXRUNTIME_MISSING "no onnxruntime_c_api.h below ONNXRUNTIME_ROOT=${ONNXRUNTIME_ROOT}")
else()
  set(CN2_ONNXRUNTIME_MISSING
      "no onnxruntime_c_api.h; run python3 plugins/fetch_headers.py, or set ONNXRUNTIME_ROOT")
endif()

if(NOT CN2_ONNXRUNTIME_MISSING)
  add_library(cn2_onnxruntime_headers INTERFACE)
  add_library(cn2::onnxruntime_headers ALIAS cn2_onnxruntime_headers)
  target_include_directories(cn2_onnxruntime_headers SYSTEM INTERFACE ${CN2_ONNXRUNTIME_INCLUDE})
  target_compile_definitions(cn2_onnxruntime_headers INTERFACE ORT_API_MANUAL_INIT)
endif()
