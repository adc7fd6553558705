#include "pooling.h"

#include <algorithm>
#include <cstring>

#include "tasks.h"

namespace cn2 {
namespace {

using Lanes __attribute__((vector_size(kLanes * sizeof(float)))) = float;

// What pools one box, as plain pointers.
struct Kernel {
  const Plans::RowTap* taps;  // [bins, taps_per_bin]
  size_t taps_per_bin;
  const float* column_weights;  // [columns, lanes]
  size_t columns;
  size_t bins;
  size_t lanes;
};

size_t round_up(size_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

// Along y: rows [bins, columns] of weighted sums of the window's rows, a strip of kStrip times kLanes
// columns of them. The last lanes may overlap those before them.
template <size_t kStrip>
[[gnu::always_inline]] inline void pool_strip(const Kernel& kernel, const float* window,
                                              size_t column, float* rows) {
  size_t places[kStrip];
  for (size_t i = 0; i < kStrip; ++i) {
    places[i] = std::min(column + i * kLanes, kernel.columns - kLanes);
  }
  const Plans::RowTap* taps = kernel.taps;
  for (size_t bin = 0; bin < kernel.bins; ++bin, rows += kernel.columns) {
    Lanes sums[kStrip] = {};
    for (size_t tap = 0; tap < kernel.taps_per_bin; ++tap, ++taps) {
#pragma GCC unroll 4
      for (size_t i = 0; i < kStrip; ++i) {
        Lanes cells;
        std::memcpy(&cells, window + taps->offset + places[i], sizeof cells);
        sums[i] += cells * taps->weight;
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < kStrip; ++i) {
      std::memcpy(rows + places[i], sums + i, sizeof sums[i]);
    }
  }
}

// All strips, where the window has kLanes columns or more.
[[gnu::always_inline]] inline void pool_rows(const Kernel& kernel, const float* window,
                                             float* rows) {
  size_t column = 0;
  for (; column + 3 * kLanes < kernel.columns; column += 4 * kLanes) {
    pool_strip<4>(kernel, window, column, rows);
  }
  if (column + 2 * kLanes < kernel.columns) {
    pool_strip<3>(kernel, window, column, rows);
  } else if (column + kLanes < kernel.columns) {
    pool_strip<2>(kernel, window, column, rows);
  } else if (column < kernel.columns) {
    pool_strip<1>(kernel, window, column, rows);
  }
}

// The same where the feature map has fewer than kLanes columns.
[[gnu::always_inline]] inline void pool_narrow_rows(const Kernel& kernel, const float* window,
                                                    float* rows) {
  const Plans::RowTap* taps = kernel.taps;
  for (size_t bin = 0; bin < kernel.bins; ++bin, rows += kernel.columns) {
    std::fill_n(rows, kernel.columns, 0.0f);
    for (size_t tap = 0; tap < kernel.taps_per_bin; ++tap, ++taps) {
      for (size_t column = 0; column < kernel.columns; ++column) {
        rows[column] += window[taps->offset + column] * taps->weight;
      }
    }
  }
}

// Along x: a block of kLanes by kLanes bins, from rows that stand `columns` apart.
[[gnu::always_inline]] inline void pool_columns(const Kernel& kernel, const float* rows,
                                                size_t first_bin, Lanes* block) {
  Lanes sums[kLanes] = {};
  const float* weights = kernel.column_weights + first_bin;
  for (size_t column = 0; column < kernel.columns; ++column, weights += kernel.lanes) {
    Lanes weight;
    std::memcpy(&weight, weights, sizeof weight);
    for (size_t row = 0; row < kLanes; ++row) {
      sums[row] += weight * rows[row * kernel.columns + column];
    }
  }
  std::memcpy(block, sums, sizeof sums);
}

// A block of the result at its place. Where whole lanes fit in front of `end`, those too many are overwritten
// by what follows.
[[gnu::always_inline]] inline void store(const Lanes* block, size_t rows, size_t columns,
                                         size_t bins, const float* end, float* pooled) {
  const bool followed = bins <= kLanes;  // else another block's columns stand behind these
  for (size_t row = 0; row < rows; ++row, pooled += bins) {
    if (columns == kLanes || (followed && pooled + kLanes <= end)) {
      std::memcpy(pooled, block + row, sizeof *block);
    } else {
      std::memcpy(pooled, block + row, columns * sizeof(float));
    }
  }
}

CN2_FOR_EACH_PROCESSOR void pool_all(const Kernel& kernel, const Channels& channels,
                                     const float* window, float* rows, float* pooled) {
  const size_t bins = kernel.bins;
  const float* end = pooled + channels.count * bins * bins;
  for (size_t channel = 0; channel < channels.count; ++channel) {
    if (kernel.columns >= kLanes) {
      pool_rows(kernel, window, rows);
    } else {
      pool_narrow_rows(kernel, window, rows);
    }
    for (size_t y = 0; y < bins; y += kLanes) {
      for (size_t x = 0; x < bins; x += kLanes) {
        Lanes block[kLanes];
        pool_columns(kernel, rows + y * kernel.columns, x, block);
        store(block, std::min(kLanes, bins - y), std::min(kLanes, bins - x), bins, end,
              pooled + y * bins + x);
      }
    }
    window += channels.plane_size;
    pooled += bins * bins;
  }
}

}  // namespace

size_t scratch_size(size_t output_size, size_t width) {
  return round_up(output_size) * width;
}

void pool_channels(const Plans& plans, const RoiPlan& roi, const Channels& channels,
                   size_t output_size, float* scratch, float* pooled) {
  if (roi.columns == 0) {
    std::fill_n(pooled, channels.count * output_size * output_size, 0.0f);
    return;
  }
  const Kernel kernel{plans.taps.data() + roi.taps,
                      roi.taps_per_bin,
                      plans.column_weights.data() + roi.column_weights,
                      roi.columns,
                      output_size,
                      round_up(output_size)};
  pool_all(kernel, channels, channels.first + roi.first_column, scratch, pooled);
}

}  // namespace cn2
