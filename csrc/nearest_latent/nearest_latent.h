// SPDX-License-Identifier: Apache-2.0
// nearest_latent: the k nearest of Q points to each of M queries, exactly, skipping visited points.
//
//   distance(i, q) = sum over d, ascending, of (points[i, d] - q[d])^2, each operation rounded to
//                    float32, none fused
//   result         = the k unvisited points of smallest (distance, index), in that order
//
// Because the order of the additions is fixed and ties go to the lower index, the result is a pure
// function of the inputs: instruction sets, thread counts, CPU and CUDA agree bit for bit.
//
// How: reading 64 bytes a point from memory is what a scan costs, so most points are never read.
// Points are put in an order in which neighbours stand together (latent_order.h), and every 32 of
// them, a group, know the box they lie in; so do every 16 groups, a tile. The distance to a box,
//
//   sum over d, ascending, of max(low[d] - q[d], q[d] - high[d], 0)^2      rounded as above,
//
// is a bound without any slack: rounding is monotonic, so no operation on the way to it can give
// more than the same operation on the way to distance(i, q) of a point inside. A group farther than
// the k-th best distance so far is skipped. Of the others the scan reads 8-bit codes (20 bytes a
// point for D = 16, and all integer arithmetic) that give another lower bound, and only points
// whose bound is below the k-th best distance are looked at in float32.
// With code u = round((x - low) / step) in 0..255 and E the largest |x - (low + step u)| of any
// point, v the query in the same units, v' = t w its 16-bit code and R = step |v - v'|:
//
//   |x - q|  >=  step |u - v'| - E - R,      |u - v'|^2 = |u|^2 - 2 t (u . w) + |v'|^2
//
// so a point can only matter where |u|^2 - 2t (u . w) < ((sqrt(T) + E + R) / step)^2 - |v'|^2 for
// the k-th best distance T, plus a slack for every rounding (see limit_of). Where the bound says
// nothing (a query 10^30 steps away) all points are looked at: slower, never wrong.
#pragma once

#include <cstdint>

namespace a2v {

inline constexpr int kBlockPoints = 16;
inline constexpr int kGroupBlocks = 2;  // 32 points a box
inline constexpr int kGroupPoints = kGroupBlocks * kBlockPoints;
inline constexpr int kFan = 16;  // groups of a tile, tiles of a region: boxes are met in lanes
inline constexpr int kTileBlocks = kFan * kGroupBlocks;
inline constexpr int kTilePoints = kTileBlocks * kBlockPoints;
inline constexpr int kMaxLatentDim = 1024;   // keeps u . w inside 32 bits with 11 bits of w
inline constexpr int kMaxNeighbours = 1024;  // K
inline constexpr std::uint64_t kNoKey = ~std::uint64_t{0};

inline constexpr std::int64_t num_blocks(std::int64_t num_points) {
  return (num_points + kBlockPoints - 1) / kBlockPoints;
}
inline constexpr int num_quads(int dim) { return (dim + 3) / 4; }
inline constexpr std::int64_t num_groups(std::int64_t num_points) {
  return (num_points + kGroupPoints - 1) / kGroupPoints;
}
inline constexpr std::int64_t num_tiles(std::int64_t num_points) {
  return (num_points + kTilePoints - 1) / kTilePoints;
}
inline constexpr std::int64_t num_regions(std::int64_t num_points) {
  return (num_tiles(num_points) + kFan - 1) / kFan;
}

// Where the codes stand: x is about low + step u.
struct LatentFrame {
  double step;
  double error;         // E
  double largest_norm;  // of |u|^2
};
inline constexpr int kFrameFields = 3;

// Contiguous arrays; the caller owns and sizes them. An index is built once by pack_latents.
struct LatentPoints {
  std::int64_t num_points;    // Q < 2^31
  int dim;                    // D
  const float* points;        // [Q, D], finite
  const std::uint8_t* codes;  // [num_blocks(Q), num_quads(D), 16, 4]: u, zero where there is none
  const float* norms;         // [num_blocks(Q), 16]: |u|^2, infinite where there is no point
  const double* frame;        // [D + 3]: low [D], then LatentFrame
  const std::int32_t* order;  // [Q]: which point stands at each place of codes and norms
  const float* boxes;  // [num_tiles(Q) + num_regions(Q), D, 2, 16]: lowest and highest values
                       // of the 16 groups of each tile, then of the 16 tiles of each region;
                       // the last ones may have fewer
};

// What pack_latents writes: the arrays of LatentPoints, and scratch.
struct LatentPacking {
  std::uint8_t* codes;
  float* norms;
  double* frame;
  std::int32_t* order;
  float* boxes;
  std::uint8_t* columns;  // [D, Q]: scratch
  std::int32_t* spare;    // [Q]: scratch
};

// Returns the first point that holds a NaN or an infinity, or Q.
std::int64_t pack_latents(std::int64_t num_points, int dim, const float* points,
                          const LatentPacking& packing);

// One query as the scan sees it.
struct LatentQuery {
  const float* query;            // [D]
  const std::uint64_t* visited;  // [ceil(Q / 64)], bit i % 64 of word i / 64; null: none visited
  const std::int32_t* code;  // [2 num_quads(D)]: w of dims (0, 2), (1, 3) of a quad, 16 bits each
  float slope;               // 2 t
  double norm;               // |v'|^2
  double radius;             // E + R; infinite where the bound says nothing
};

// Encodes one query into code [2 num_quads(D)].
LatentQuery encode_query(const LatentPoints& points, const float* query,
                         const std::uint64_t* visited, std::int32_t* code);

// The best so far of one query: ascending keys (distance bits << 32 | index), kNoKey where fewer.
// Non-negative floats order as their bits, so comparing keys compares (distance, index).
struct LatentBest {
  std::uint64_t* keys;  // [k]
  int k;
  float limit;     // scores below it must be looked at
  float farthest;  // boxes beyond it hold nothing that matters
};

// Nothing found yet.
LatentBest start_best(std::uint64_t* keys, int k);

// Looks at the points of one block whose bit is set in mask, and lowers best.limit and farthest.
void look_at(const LatentPoints& points, const LatentQuery& query, std::int64_t block,
             std::uint32_t mask, LatentBest& best);

// Merges keys [chunks, k], each ascending, into distances and indices [k]; -1 and infinity where
// there are fewer. Overwrites keys.
void merge_best(std::uint64_t* keys, std::int64_t chunks, int k, float* distances,
                std::int64_t* indices);

// The scan of one instruction set; all give the same results.
struct LatentScan {
  // Looks into the groups nearest to a query, for a limit to begin with.
  void (*seed)(const LatentPoints& points, const LatentQuery& query, LatentBest& best);
  // Scans tiles first .. last-1 for all queries.
  void (*scan)(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
               std::int64_t num_queries, std::int64_t first, std::int64_t last);
};
extern const LatentScan kLatentScanScalar;
extern const LatentScan kLatentScanAvx2;
extern const LatentScan kLatentScanAvx512;

// The version for simd_level().
const LatentScan& latent_scan();

}  // namespace a2v
