// SPDX-License-Identifier: Apache-2.0
// How gin_train works on a CPU: which thread trains which cells, and where everything lies.
//
// A team of T threads trains one model. The cells of a step are split evenly over the threads, and
// a thread's cells into tiles of at most kTileCells. All matrices of a tile are in panels
// (common/gemm.h) of `tile_rows` rows, node i of the tile's cell c being row c*N + i. With batch
// statistics every tile keeps its activations from the forward to the backward pass; with frozen
// statistics a tile runs forward and backward at once and all tiles of a thread share one place.
//
// Plain structs of pointers and sizes: the kernels of every instruction set read them, the driver
// (gin_train_cpu.cpp) owns the memory. Nothing here is inline code, see common/simd.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/team.h"
#include "gin_train/gin_train.h"

namespace a2v {

constexpr int kTileCells = 6;   // 6 N rows: whole register blocks for any N, and L1 holds a matrix
constexpr int kGroupTiles = 8;  // tiles that are decoded together, for the mixer's sake
constexpr int kMaxStages = kMaxGinLayers * kMaxMlpLayers;
constexpr double kNormMomentum = 0.1;
constexpr float kNormTiny = 1e-5F;

// A linear layer as the kernels read it: weights in panels in both directions, zeros beyond `in`
// and `out`. `parameter` are offsets in the flat buffer.
struct PackedLinear {
  int in;
  int out;
  int in_panels;
  int out_panels;
  GinParameterLayout::Linear parameter;
  float* forward;   // [out_panels][in][16]
  float* backward;  // [in_panels][out][16]
  float* bias;      // [out_panels * 16]
};

// A linear of the encoder with its norm and what follows for its columns [hidden_panels * 16].
// Stage l*K + k. Members with a [T] have one entry a thread.
struct Stage {
  PackedLinear linear;
  GinParameterLayout::Linear norm;
  float* gamma;
  float* beta;
  double* mean_part;  // [T][width] of the thread's rows
  double* m2_part;    // [T][width] sums of squared deviations
  double* sum_part;   // [T][2][width] sums of g and g (h - mean), g the gradient of norm's output
};

struct TrainCell {
  std::uint16_t preds[kMaxNodes];
  std::uint16_t succs[kMaxNodes];
  std::uint16_t label[kMaxNodes];  // 0: absent
};

// What a thread knows of a stage's norm: y = h * scale + shift.
struct NormColumns {
  float* mean;
  float* rstd;
  float* scale;
  float* shift;
  float* mean_g;   // backward: mean of g, zero with frozen statistics
  float* slope_g;  // backward: rstd^2 mean of g (h - mean), ditto
};

// Scratch of the decoder for one group of tiles; [.] panels of tile_rows rows a tile, or of
// kGroupTiles * kTileCells rows, one a cell, for the mixer.
struct DecoderScratch {
  float* posterior;  // a tile: [2 latent_panels] mu, then log sigma
  float* z;          // a tile: [latent_panels] after dropout
  float* mixed;      // a tile: [latent_panels] after the mixer
  float* gradient;   // a tile: [latent_panels] of `mixed`
  float* flat;       // [flat_panels] z, one row a cell
  float* hidden;     // [mixing_panels]
  float* hidden_gradient;
  float* flat_out;       // [flat_panels] what the mixer adds; then the gradient of `mixed`
  float* flat_gradient;  // [flat_panels]
  float* source;         // one tile: [latent_panels] z W
  float* source_gradient;
  float* logits;      // one tile: [class_panels]; then their gradient
  float* heads;       // one tile: [2 latent_panels] gradient of the posterior
  float* transposed;  // [latent_panels * 16][16] z of one cell
  float* edge;        // [N][16] edge gradients of one cell
  float* noise;       // a tile: [cells, N, D]
  float* keep;        // ditto: 1 / (1 - dropout) or 0
};

struct TrainThread {
  int first_cell;  // of the batch
  int num_cells;
  TrainCell* cells;
  float* activations;  // tiles
  float* gradient;     // [P + 16]
  float* node_bias;    // [N][class_panels * 16], gradient
  float* edge_bias;    // [N][16]
  float* scratch;      // [hidden_panels] one tile
  float* scratch2;
  float* columns;      // what pairs of rows of one tile have values in, common/sparse_rows.h
  float* column_mean;  // [width] of one tile
  float* column_m2;
  double* double_mean;  // [width] merged over the team
  double* double_m2;
  NormColumns norm[kMaxStages];
  DecoderScratch decoder;
  double loss[3];       // node, edge, kl
  double squared_norm;  // of the thread's slice of the gradient
  double* moments;      // [2, N*D]
};

// Offsets within a tile's activations, in floats.
struct TileOffsets {
  std::ptrdiff_t input[kMaxStages + 1];  // operand of a stage's linear; the last one of the heads
  std::ptrdiff_t output[kMaxStages];     // of the linear, before its norm
  std::ptrdiff_t gradient;               // of the stage's output after norm and ReLU
  std::ptrdiff_t size;
};

struct TrainTeam {
  GinTrainParams params;  // pointers of the model at work
  GinParameterLayout layout;
  int threads{};  // T
  int stages{};   // L*K
  int hidden_panels{};
  int latent_panels{};
  int class_panels{};
  int mixing_panels{};
  int flat_panels{};
  int tile_rows{};
  std::ptrdiff_t panel{};        // floats of a tile's panel, 16 * tile_rows
  std::ptrdiff_t group_panel{};  // of a mixer's panel
  TileOffsets tile{};
  Stage stage[kMaxStages]{};
  PackedLinear heads{};  // mu over log sigma, each latent_panels * 16 wide; see pack_heads()
  PackedLinear op_head{};
  PackedLinear mixer_in{};
  PackedLinear mixer_out{};
  float* bilinear_forward{};
  float* bilinear_backward{};
  float* node_bias{};             // [N][class_panels * 16]
  float* edge_bias{};             // [N][16]
  float* gates[kMaxGinLayers]{};  // [2][in_panels * 16]
  TrainThread* thread{};          // [T]
  Barrier* barrier{};
};

// The cells of a step in the order of the batch: what the instruction sets share, in baseline code.
// `step` counts within the call.
void split_cells(const TrainTeam& team, std::int64_t step, int thread);
void read_cells(const TrainTeam& team, std::int64_t step, int thread);
void draw_noise(const TrainTeam& team, std::int64_t step, int first_cell, int num_cells,
                float* noise, float* keep);

// One member of a team: all steps of the call.
namespace scalar {
void train_member(TrainTeam& team, int thread);
}
#if defined(__x86_64__)
namespace avx2 {
void train_member(TrainTeam& team, int thread);
}
namespace avx512 {
void train_member(TrainTeam& team, int thread);
}
#endif

// The whole call on `threads` threads. All arrays of `params` are host memory; order and codes were
// checked. Throws std::bad_alloc and std::system_error before anything was changed.
void gin_train_cpu(const GinTrainParams& params, int threads);

}  // namespace a2v
