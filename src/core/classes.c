// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The table of size classes, computed by the compiler.

#include "core/classes.h"

#define CLASS(bytes, first_lane, lane_count)                          \
    {                                                                 \
        .size = (bytes), .lane = (first_lane), .lanes = (lane_count), \
        .divisor = (0 - (uint64_t)(bytes)) / (bytes) + 2              \
    }

#define LINEAR(i) CLASS(((i) + 1) * PM_BLOCK_ALIGN, (i) == 0 ? 0 : (i) + 1, (i) == 0 ? 2 : 1)
#define LINEAR_8(i)                                                                \
    LINEAR(i), LINEAR((i) + 1), LINEAR((i) + 2), LINEAR((i) + 3), LINEAR((i) + 4), \
        LINEAR((i) + 5), LINEAR((i) + 6), LINEAR((i) + 7)

#define STEP(base, k, lane, lanes) \
    CLASS((base) + (base) / 8 * (k), (lane) + ((k)-1) * (lanes), lanes)
#define DOUBLING(base, lane, lanes)                                                         \
    STEP(base, 1, lane, lanes), STEP(base, 2, lane, lanes), STEP(base, 3, lane, lanes),     \
        STEP(base, 4, lane, lanes), STEP(base, 5, lane, lanes), STEP(base, 6, lane, lanes), \
        STEP(base, 7, lane, lanes), STEP(base, 8, lane, lanes)

const struct pm_class_info pm_classes[PM_CLASS_COUNT] = {
    LINEAR_8(0),
    LINEAR_8(8),
    LINEAR_8(16),
    LINEAR_8(24),
    DOUBLING(512, PM_CLASS_LINEAR_COUNT + 1, 4),
    DOUBLING(1024, PM_LANE_LINEAR_COUNT, 1),
    DOUBLING(2048, PM_LANE_LINEAR_COUNT + 8, 1),
    DOUBLING(4096, PM_LANE_LINEAR_COUNT + 16, 1),
    DOUBLING(8192, PM_LANE_LINEAR_COUNT + 24, 1),
    DOUBLING(16384, PM_LANE_LINEAR_COUNT + 32, 1),
    DOUBLING(32768, PM_LANE_LINEAR_COUNT + 40, 1),
};
