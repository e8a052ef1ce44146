// SPDX-License-Identifier: Apache-2.0
// The Python module that carries the CUDA kernels of the operators declared in library.cpp. A
// library of its own, because it needs libtorch_cuda, which a CPU installation of torch lacks;
// arch2vec_fast/_library.py loads it after _C where torch has CUDA.

#include <Python.h>

PyMODINIT_FUNC PyInit__C_cuda() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_C_cuda",
                                   "CUDA kernels of arch2vec_fast's operators.",
                                   -1,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
