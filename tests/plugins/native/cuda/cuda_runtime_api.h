// Stands for NVIDIA's header where kernels are emulated.
#pragma once

#include "../cuda_emulator.h"
