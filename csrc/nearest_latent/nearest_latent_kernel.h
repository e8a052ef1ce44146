// SPDX-License-Identifier: Apache-2.0
// The scan of nearest_latent.h, once for every instruction set: see common/simd.h.
//
// A block is 16 points, one 32-bit lane a point, and a lane holds four dims as bytes. Even and odd
// bytes are split into 16-bit halves by a mask and a shift, multiplied by the query's 16-bit codes
// and added in pairs (vpmaddwd): 32 products in six instructions. Float32 needs four, but waits for
// four times the bytes: 2.4 ms against 0.25 for 423,624 points of 16 dims (Zen 3, one thread).
// How the score rounds does not matter: look_at decides, and the limit has slack for it. How the
// distance to a box rounds does.
#pragma once

#include <cstdint>

#include "common/simd.h"
#include "nearest_latent/nearest_latent.h"

namespace a2v::A2V_SIMD::nearest {

#if defined(A2V_SIMD_AVX512)

struct Pairs {  // two dims of 16 points
  __m512i x;
};
struct Sums {  // of 16 points
  __m512i x;
};
A2V_INLINE Sums no_sums() { return {_mm512_setzero_si512()}; }
A2V_INLINE void split(const std::uint8_t* codes, Pairs& even, Pairs& odd) {
  const __m512i bytes = _mm512_loadu_si512(codes);
  even.x = _mm512_and_si512(bytes, _mm512_set1_epi32(0x00ff00ff));
  odd.x = _mm512_srli_epi16(bytes, 8);
}
A2V_INLINE void add_products(Sums& sums, Pairs codes, std::int32_t query) {
  sums.x = _mm512_add_epi32(sums.x, _mm512_madd_epi16(codes.x, _mm512_set1_epi32(query)));
}
A2V_INLINE V16 to_float(Sums sums) { return {_mm512_cvtepi32_ps(sums.x)}; }

#elif defined(A2V_SIMD_AVX2)

struct Pairs {
  __m256i lo, hi;
};
struct Sums {
  __m256i lo, hi;
};
A2V_INLINE Sums no_sums() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
A2V_INLINE void split(const std::uint8_t* codes, Pairs& even, Pairs& odd) {
  const auto* halves = reinterpret_cast<const __m256i*>(codes);
  const __m256i lo = _mm256_loadu_si256(halves), hi = _mm256_loadu_si256(halves + 1);
  const __m256i low_bytes = _mm256_set1_epi32(0x00ff00ff);
  even = {_mm256_and_si256(lo, low_bytes), _mm256_and_si256(hi, low_bytes)};
  odd = {_mm256_srli_epi16(lo, 8), _mm256_srli_epi16(hi, 8)};
}
A2V_INLINE void add_products(Sums& sums, Pairs codes, std::int32_t query) {
  const __m256i pair = _mm256_set1_epi32(query);
  sums.lo = _mm256_add_epi32(sums.lo, _mm256_madd_epi16(codes.lo, pair));
  sums.hi = _mm256_add_epi32(sums.hi, _mm256_madd_epi16(codes.hi, pair));
}
A2V_INLINE V16 to_float(Sums sums) {
  return {_mm256_cvtepi32_ps(sums.lo), _mm256_cvtepi32_ps(sums.hi)};
}

#else

struct Pairs {
  std::int16_t x[kLanes][2];
};
struct Sums {
  std::int32_t x[kLanes];
};
A2V_INLINE Sums no_sums() { return {}; }
A2V_INLINE void split(const std::uint8_t* codes, Pairs& even, Pairs& odd) {
  for (int lane = 0; lane < kLanes; ++lane, codes += 4) {
    for (int pair = 0; pair < 2; ++pair) {
      even.x[lane][pair] = codes[2 * pair];
      odd.x[lane][pair] = codes[2 * pair + 1];
    }
  }
}
A2V_INLINE void add_products(Sums& sums, const Pairs& codes, std::int32_t query) {
  const auto first = static_cast<std::int16_t>(query & 0xffff);
  const auto second = static_cast<std::int16_t>(query >> 16);
  for (int lane = 0; lane < kLanes; ++lane) {
    sums.x[lane] += codes.x[lane][0] * first + codes.x[lane][1] * second;
  }
}
A2V_INLINE V16 to_float(const Sums& sums) {
  float values[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = static_cast<float>(sums.x[lane]);
  return load(values);
}

#endif

// The distances to the 16 boxes of a tile or region, exact bounds as nearest_latent.h has it:
// never fused, in order of the dims.
A2V_INLINE V16 distances_to(const float* boxes, const float* query, int dim) {
  V16 sum = zero();
  for (int d = 0; d < dim; ++d, boxes += 2 * kFan) {
    const V16 here = set1(query[d]);
    const V16 outside = max(max(load(boxes) - here, here - load(boxes + kFan)), zero());
    sum = sum + outside * outside;
  }
  return sum;
}

A2V_INLINE const float* boxes_of_tile(const LatentPoints& points, std::int64_t tile) {
  return points.boxes + tile * points.dim * (2 * kFan);
}
A2V_INLINE const float* boxes_of_region(const LatentPoints& points, std::int64_t region) {
  return boxes_of_tile(points, num_tiles(points.num_points) + region);
}

// How many of kFan children, of `count` in all, follow `first`.
A2V_INLINE int children(std::int64_t first, std::int64_t count) {
  return static_cast<int>(count - first < kFan ? count - first : kFan);
}

// The codes of a group's blocks are loaded and split once for all kQueries.
template <int kQueries>
void scan_group(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
                std::int64_t group) {
  const int quads = num_quads(points.dim);
  const std::int64_t blocks = num_blocks(points.num_points);
  const std::int64_t first = group * kGroupBlocks;
  const std::int64_t last = first + kGroupBlocks < blocks ? first + kGroupBlocks : blocks;
  for (std::int64_t block = first; block < last; ++block) {
    const std::uint8_t* codes = points.codes + block * quads * (4 * kBlockPoints);
    Sums sums[kQueries];
    for (Sums& sum : sums) sum = no_sums();
    for (int quad = 0; quad < quads; ++quad) {
      Pairs even, odd;
      split(codes + quad * (4 * kBlockPoints), even, odd);
      for (int m = 0; m < kQueries; ++m) {
        add_products(sums[m], even, queries[m].code[2 * quad]);
        add_products(sums[m], odd, queries[m].code[2 * quad + 1]);
      }
    }
    const V16 norms = load(points.norms + block * kBlockPoints);
    for (int m = 0; m < kQueries; ++m) {
      const V16 score = fma(to_float(sums[m]), set1(-queries[m].slope), norms);
      const std::uint32_t mask = bits(score < set1(best[m].limit));
      if (mask != 0) [[unlikely]] {
        look_at(points, queries[m], block, mask, best[m]);
      }
    }
  }
}

// The `kKept` boxes of least distance, the nearest first; the lower one where they are equal.
template <int kKept>
struct NearestBoxes {
  float distance[kKept];
  std::int64_t box[kKept];
  int count = 0;

  void add(float found, std::int64_t candidate) {
    if (count == kKept && !(found < distance[kKept - 1])) return;
    int place = count < kKept ? count++ : kKept - 1;
    for (; place > 0 && found < distance[place - 1]; --place) {
      distance[place] = distance[place - 1];
      box[place] = box[place - 1];
    }
    distance[place] = found;
    box[place] = candidate;
  }

  // Adds the `children` boxes of one tile or region, numbered from `first`.
  void add_children(const float* boxes, const LatentPoints& points, const float* query,
                    std::int64_t first, int children) {
    float found[kFan];
    store(found, distances_to(boxes, query, points.dim));
    for (int child = 0; child < children; ++child) add(found[child], first + child);
  }
};

// The nearest tiles, group by group, for as long as they are near. Points are in an order that a
// scan may approach its query in, improving on its best with every step; so it begins with a limit
// that is close to the last one.
inline void seed(const LatentPoints& points, const LatentQuery& query, LatentBest& best) {
  const std::int64_t num_of_tiles = num_tiles(points.num_points);
  NearestBoxes<8> tiles;
  for (std::int64_t first = 0; first < num_of_tiles; first += kFan) {
    tiles.add_children(boxes_of_region(points, first / kFan), points, query.query, first,
                       children(first, num_of_tiles));
  }
  for (int n = 0; n < tiles.count && !(tiles.distance[n] > best.farthest); ++n) {
    const std::int64_t first = tiles.box[n] * kFan;
    NearestBoxes<kFan> groups;
    groups.add_children(boxes_of_tile(points, tiles.box[n]), points, query.query, first,
                        children(first, num_groups(points.num_points)));
    for (int g = 0; g < groups.count && !(groups.distance[g] > best.farthest); ++g) {
      scan_group<1>(points, &query, &best, groups.box[g]);
    }
  }
}

// What a tile's groups will ask of memory, in time.
A2V_INLINE void prefetch_groups(const LatentPoints& points, std::int64_t tile, std::uint32_t mask) {
  const std::int64_t bytes = num_quads(points.dim) * (4 * kGroupPoints);
  for (; mask != 0; mask &= mask - 1) {
    const std::int64_t group = tile * kFan + __builtin_ctz(mask);
    for (std::int64_t line = 0; line < bytes; line += 64) {
      __builtin_prefetch(points.codes + group * bytes + line);
    }
    for (int lane = 0; lane < kGroupPoints; lane += 16) {
      __builtin_prefetch(points.norms + group * kGroupPoints + lane);
    }
  }
}

// Groups are met by few queries at a time where the boxes tell them apart; where they do not, the
// queries share what they read.
template <int kQueries>
void scan_tile(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
               std::int64_t tile, std::uint32_t wanted) {
  float distances[kQueries][kFan];
  std::uint32_t any = 0;
  for (int m = 0; m < kQueries; ++m) {
    if ((wanted >> m & 1) == 0) {
      store(distances[m], set1(__builtin_inff()));
      continue;
    }
    const V16 bound = distances_to(boxes_of_tile(points, tile), queries[m].query, points.dim);
    store(distances[m], bound);
    any |= ~bits(bound > set1(best[m].farthest));
  }
  any &= (1U << children(tile * kFan, num_groups(points.num_points))) - 1;
  prefetch_groups(points, tile, any);
  for (; any != 0; any &= any - 1) {
    const int child = __builtin_ctz(any);
    const std::int64_t group = tile * kFan + child;
    std::uint32_t near = 0;
    for (int m = 0; m < kQueries; ++m) {
      const bool beyond = distances[m][child] > best[m].farthest || (wanted >> m & 1) == 0;
      near |= (beyond ? 0U : 1U) << m;
    }
    if (kQueries > 1 && 4 * __builtin_popcount(near) >= 3 * kQueries) {
      scan_group<kQueries>(points, queries, best, group);
      continue;
    }
    for (; near != 0; near &= near - 1) {
      const int m = __builtin_ctz(near);
      scan_group<1>(points, queries + m, best + m, group);
    }
  }
}

// Tiles first .. last-1, all of one region.
template <int kQueries>
void scan_region(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
                 std::int64_t first, std::int64_t last) {
  float distances[kQueries][kFan];
  const float* boxes = boxes_of_region(points, first / kFan);
  for (int m = 0; m < kQueries; ++m) {
    store(distances[m], distances_to(boxes, queries[m].query, points.dim));
  }
  for (std::int64_t tile = first; tile < last; ++tile) {
    std::uint32_t wanted = 0;
    for (int m = 0; m < kQueries; ++m) {
      const bool beyond = distances[m][tile % kFan] > best[m].farthest;
      wanted |= (beyond ? 0U : 1U) << m;
    }
    if (wanted != 0) scan_tile<kQueries>(points, queries, best, tile, wanted);
  }
}

// Points are taken by pieces that stay in the second-level cache while all queries pass over them.
inline void scan(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
                 std::int64_t num_queries, std::int64_t first, std::int64_t last) {
  constexpr int kGroup = 4;
  constexpr std::int64_t kPieceBytes = 128 * 1024;
  const std::int64_t fitting = kPieceBytes / (num_quads(points.dim) * (4 * kTilePoints));
  const std::int64_t piece = fitting < 1 ? 1 : fitting;
  for (std::int64_t begin = first; begin < last;) {
    const std::int64_t region_end = (begin / kFan + 1) * kFan;
    std::int64_t end = begin + piece < last ? begin + piece : last;
    end = end < region_end ? end : region_end;
    std::int64_t m = 0;
    for (; m + kGroup <= num_queries; m += kGroup) {
      scan_region<kGroup>(points, queries + m, best + m, begin, end);
    }
    for (; m < num_queries; ++m) {
      scan_region<1>(points, queries + m, best + m, begin, end);
    }
    begin = end;
  }
}

}  // namespace a2v::A2V_SIMD::nearest
