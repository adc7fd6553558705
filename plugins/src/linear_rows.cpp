#include "linear_rows.h"

#include "clones.h"
#include "resize_linear.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <tmmintrin.h>
#define CN2_HAS_SSSE3 1
#endif

namespace cn2 {
namespace {

// Pixels [begin, the end) one by one.
void portable_row(const uint8_t* row, const PixelLayout& layout, const LinearAxis& columns,
                  int32_t begin, int16_t* values) {
  const int32_t offsets[3] = {layout.red, layout.green, layout.blue};
  for (int32_t x = begin; x < columns.to; ++x) {
    const auto at = static_cast<size_t>(x);
    const uint8_t* first = row + static_cast<ptrdiff_t>(columns.first[at]) * layout.bytes;
    const uint8_t* second = row + static_cast<ptrdiff_t>(columns.second[at]) * layout.bytes;
    for (size_t colour = 0; colour < 3; ++colour) {
      const int16_t* weights = &columns.weights[(3 * at + colour) * 2];
      const int32_t sum =
          first[offsets[colour]] * weights[0] + second[offsets[colour]] * weights[1];
      values[3 * at + colour] = static_cast<int16_t>(sum >> 4);
    }
  }
}

#ifdef CN2_HAS_SSSE3

// Two neighbours of a pixel lie in the 8 bytes from the first on. Of two such eights this gathers
// four pairs of equal colour, as 16-bit numbers: colours `begin` to `begin + 3` of red, green,
// blue, red, green, blue.
__m128i gather_mask(const PixelLayout& layout, int begin) {
  const int32_t offsets[3] = {layout.red, layout.green, layout.blue};
  alignas(16) int8_t mask[16];
  for (int pair = 0; pair < 4; ++pair) {
    const int place = begin + pair;
    const int first = 8 * (place / 3) + offsets[place % 3];
    mask[4 * pair] = static_cast<int8_t>(first);
    mask[4 * pair + 2] = static_cast<int8_t>(first + layout.bytes);
    mask[4 * pair + 1] = mask[4 * pair + 3] = -1;  // zero
  }
  return _mm_load_si128(reinterpret_cast<const __m128i*>(mask));
}

__attribute__((target("ssse3"))) inline __m128i load_two(const uint8_t* first,
                                                         const uint8_t* second) {
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first));
  return _mm_castps_si128(
      _mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(second)));
}

__attribute__((target("ssse3"))) inline __m128i weigh(__m128i bytes, __m128i mask,
                                                      const int16_t* weights) {
  const __m128i factors = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights));
  return _mm_srai_epi32(_mm_madd_epi16(_mm_shuffle_epi8(bytes, mask), factors), 4);
}

// Four pixels at a time, as far as 8 bytes can be read from each; returns where it stopped.
__attribute__((target("ssse3"))) int32_t ssse3_row(const uint8_t* row, const PixelLayout& layout,
                                                   const LinearAxis& columns, int16_t* values) {
  const __m128i mask_0 = gather_mask(layout, 0);
  const __m128i mask_1 = gather_mask(layout, 1);
  const __m128i mask_2 = gather_mask(layout, 2);
  const int32_t* first = columns.first.data();
  const int16_t* weights = columns.weights.data();
  const int32_t last = columns.from * layout.bytes - 8;  // where 8 bytes can begin
  int32_t x = 0;
  for (; x + 4 <= columns.to && first[x + 3] * layout.bytes <= last; x += 4, weights += 24) {
    const auto at = [&](int32_t pixel) { return row + first[x + pixel] * layout.bytes; };
    const __m128i ab = load_two(at(0), at(1));
    const __m128i cd = load_two(at(2), at(3));
    const __m128i bc = _mm_alignr_epi8(cd, ab, 8);
    const __m128i low = _mm_packs_epi32(weigh(ab, mask_0, weights), weigh(bc, mask_1, weights + 8));
    const __m128i high = weigh(cd, mask_2, weights + 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 3 * x), low);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(values + 3 * x + 8), _mm_packs_epi32(high, high));
  }
  return x;
}

// Sums of two neighbours' colours, for the 4 pixels in the first 12 bytes: 6 numbers.
__attribute__((target("ssse3"))) inline __m128i sum_neighbours(const uint8_t* pixels) {
  const __m128i mask = _mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels));
  return _mm_maddubs_epi16(_mm_shuffle_epi8(bytes, mask), _mm_set1_epi8(1));
}

__attribute__((target("ssse3"))) inline __m128i mean_of_two(const uint8_t* above,
                                                            const uint8_t* below) {
  const __m128i sum = _mm_add_epi16(sum_neighbours(above), sum_neighbours(below));
  return _mm_srli_epi16(_mm_add_epi16(sum, _mm_set1_epi16(2)), 2);
}

// Four pixels at a time, of which it reads 28 bytes and writes 14; returns where it stopped.
__attribute__((target("ssse3"))) int32_t ssse3_mean(const uint8_t* above, const uint8_t* below,
                                                    int32_t count, uint8_t* rgb) {
  int32_t x = 0;
  for (; x + 5 <= count; x += 4, above += 24, below += 24, rgb += 12) {
    const __m128i mean =
        _mm_packus_epi16(mean_of_two(above, below), mean_of_two(above + 12, below + 12));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(rgb), mean);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(rgb + 6), _mm_srli_si128(mean, 8));
  }
  return x;
}

#endif

}  // namespace

void linear_row(const uint8_t* row, const PixelLayout& layout, const LinearAxis& columns,
                int16_t* values) {
  int32_t begin = 0;
#ifdef CN2_HAS_SSSE3
  if (__builtin_cpu_supports("ssse3")) {
    begin = ssse3_row(row, layout, columns, values);
  }
#endif
  portable_row(row, layout, columns, begin, values);
}

CN2_CLONES void linear_blend(const int16_t* first, const int16_t* second, int16_t first_weight,
                             int16_t second_weight, int32_t count, uint8_t* bytes) {
  for (int32_t i = 0; i < count; ++i) {
    const int32_t sum = ((first[i] * first_weight) >> 16) + ((second[i] * second_weight) >> 16);
    bytes[i] = static_cast<uint8_t>((sum + 2) >> 2);
  }
}

void linear_mean(const uint8_t* above, const uint8_t* below, int32_t count, uint8_t* rgb) {
  int32_t x = 0;
#ifdef CN2_HAS_SSSE3
  if (__builtin_cpu_supports("ssse3")) {
    x = ssse3_mean(above, below, count, rgb);
  }
#endif
  for (; x < count; ++x) {
    for (ptrdiff_t colour = 3 * x; colour < 3 * x + 3; ++colour) {
      const ptrdiff_t at = colour + 3 * x;
      rgb[colour] =
          static_cast<uint8_t>((above[at] + above[at + 3] + below[at] + below[at + 3] + 2) >> 2);
    }
  }
}

}  // namespace cn2
