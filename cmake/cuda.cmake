# SPDX-License-Identifier: Apache-2.0
# _C_cuda: the CUDA kernels of the operators. Included by CMakeLists.txt, which lists the sources.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(A2V_CUDA STREQUAL "ON")
    message(FATAL_ERROR "A2V_CUDA=ON, but no nvcc was found; put it on PATH or set CUDACXX or CUDA_HOME")
  endif()
  message(STATUS "_C_cuda: not built, no nvcc found (PATH, CUDACXX, CUDA_HOME)")
  return()
endif()

# Machine code for A100 and H100, and PTX for what comes after.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION}: too old, C++20 needs 12.0; set CUDACXX, or A2V_CUDA=OFF")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
# The CUDA runtime is linked in: the library then runs beside a torch of any CUDA version that the driver serves, and
# the two share contexts and streams through the driver. Hidden, or torch's copy would take the calls.
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)

# Python loads torch privately: its symbols are seen by libraries that name libtorch_cuda as needed. A CPU build of torch
# has none to link against, so a stub of that name stands in at link time; at load time it is torch's own.
set(stub ${CMAKE_CURRENT_BINARY_DIR}/torch_cuda/stub.cpp)
file(CONFIGURE OUTPUT ${stub} CONTENT
  "extern \"C\" __attribute__((visibility(\"default\"))) void aoti_torch_get_current_cuda_stream() {}\n")
add_library(torch_cuda_stub SHARED ${stub})
set_target_properties(torch_cuda_stub PROPERTIES
  OUTPUT_NAME torch_cuda LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/torch_cuda)

python_add_library(_C_cuda MODULE WITH_SOABI ${C_CUDA_SOURCES})
target_compile_definitions(_C_cuda PRIVATE USE_CUDA)  # torch's shim.h declares its CUDA part
target_link_libraries(_C_cuda PRIVATE torch_stable torch_cuda_stub)
target_link_options(_C_cuda PRIVATE LINKER:--exclude-libs,ALL)
# constexpr functions of csrc/cells serve kernels too; -Xptxas=-v reports registers, shared memory and spills.
target_compile_options(_C_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
  --expt-relaxed-constexpr -Xptxas=-v -Xcompiler=-Wall,-Wextra $<$<BOOL:${A2V_WERROR}>:-Werror=all-warnings>>)
# That report goes to <object>.ptxas, for `python _build/ptxas.py report`, and not to the terminal.
set_property(TARGET _C_cuda PROPERTY CUDA_COMPILER_LAUNCHER
  ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/_build/ptxas.py run ${CMAKE_CUDA_COMPILER_LAUNCHER})
install(TARGETS _C_cuda LIBRARY DESTINATION arch2vec_fast)
message(STATUS "_C_cuda: nvcc ${CMAKE_CUDA_COMPILER_VERSION} at ${CMAKE_CUDA_COMPILER}, ${CMAKE_CUDA_ARCHITECTURES}")
