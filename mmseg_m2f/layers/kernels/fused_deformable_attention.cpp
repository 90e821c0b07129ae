// Multi-scale deformable attention on the CPU (arXiv 2010.04159, section 4.1), from raw projections to the weighted
// sum: softmax over the readings of a head, sampling places from reference points and offsets, bilinear reading.
// Nothing but the output is stored; the backward pass computes weights and places again.
//
// Layouts, all contiguous: value B N M D, reference Nq 2, offsets B Nq M R 2 with R = L P readings, logits B Nq M R,
// output B Nq M D. `shapes` holds height, width and first token of each level.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t kMostReadings = 256;

struct Sizes {
  int64_t images, tokens, queries, heads, channels, levels, points;
  const int64_t* shapes;
};

// The four cells around a place: first channel of each in the map of an image, or -1 outside, and its share.
template <typename T>
struct Taps {
  int64_t cell[4];
  T share[4];
  T right, below;  // how far the place lies right of and below the centre of the upper left cell
};

template <typename T>
inline Taps<T> locate(const Sizes& s, int64_t level, int64_t head, T x, T y) {
  const int64_t height = s.shapes[3 * level], width = s.shapes[3 * level + 1], first = s.shapes[3 * level + 2];
  Taps<T> taps;
  // Far outside, or not a number, is outside: the conversion to integers stays defined.
  const bool near = x > T(-2) && y > T(-2) && x < T(width + 2) && y < T(height + 2);
  const T left = near ? std::floor(x) : T(-2), top = near ? std::floor(y) : T(-2);
  taps.right = near ? x - left : T(0);
  taps.below = near ? y - top : T(0);
  const int64_t column = static_cast<int64_t>(left), row = static_cast<int64_t>(top);
  for (int corner = 0; corner < 4; ++corner) {
    const int64_t r = row + (corner >> 1), c = column + (corner & 1);
    const bool inside = r >= 0 && r < height && c >= 0 && c < width;
    taps.cell[corner] = inside ? ((first + r * width + c) * s.heads + head) * s.channels : -1;
    taps.share[corner] = (corner & 1 ? taps.right : 1 - taps.right) * (corner >> 1 ? taps.below : 1 - taps.below);
  }
  return taps;
}

template <typename T>
inline void softmax(const T* logits, int64_t count, T* weights) {
  const T largest = *std::max_element(logits, logits + count);
  T total = 0;
  for (int64_t i = 0; i < count; ++i) total += weights[i] = std::exp(logits[i] - largest);
  for (int64_t i = 0; i < count; ++i) weights[i] /= total;
}

template <typename T, int64_t kChannels>
void forward(const Sizes& s, const T* value, const T* reference, const T* offsets, const T* logits, T* output,
             int threads) {
  const int64_t channels = kChannels ? kChannels : s.channels, readings = s.levels * s.points;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t query = 0; query < s.queries; ++query) {
      const T* maps = value + image * s.tokens * s.heads * channels;
      T weights[kMostReadings];
      for (int64_t head = 0; head < s.heads; ++head) {
        const int64_t place = (image * s.queries + query) * s.heads + head;
        softmax(logits + place * readings, readings, weights);
        T* out = output + place * channels;
        std::fill(out, out + channels, T(0));
        for (int64_t i = 0; i < readings; ++i) {
          const int64_t level = i / s.points;
          const T* offset = offsets + (place * readings + i) * 2;
          const T x = reference[2 * query] * s.shapes[3 * level + 1] + offset[0] - T(0.5);
          const T y = reference[2 * query + 1] * s.shapes[3 * level] + offset[1] - T(0.5);
          const Taps<T> taps = locate(s, level, head, x, y);
          for (int corner = 0; corner < 4; ++corner) {
            if (taps.cell[corner] < 0) continue;
            const T* cell = maps + taps.cell[corner];
            const T share = weights[i] * taps.share[corner];
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) out[c] += share * cell[c];
          }
        }
      }
    }
  }
}

// Threads share out images and heads, so that no two of them add to the same cell of `grad_value` (which starts as 0).
template <typename T, int64_t kChannels>
void backward(const Sizes& s, const T* value, const T* reference, const T* offsets, const T* logits,
              const T* grad_output, T* grad_value, T* grad_offsets, T* grad_logits, int threads) {
  const int64_t channels = kChannels ? kChannels : s.channels, readings = s.levels * s.points;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t start = image * s.tokens * s.heads * channels;
      T weights[kMostReadings], agreement[kMostReadings];
      for (int64_t query = 0; query < s.queries; ++query) {
        const int64_t place = (image * s.queries + query) * s.heads + head;
        softmax(logits + place * readings, readings, weights);
        const T* grad = grad_output + place * channels;
        T mean = 0;
        for (int64_t i = 0; i < readings; ++i) {
          const int64_t level = i / s.points;
          const T* offset = offsets + (place * readings + i) * 2;
          const T x = reference[2 * query] * s.shapes[3 * level + 1] + offset[0] - T(0.5);
          const T y = reference[2 * query + 1] * s.shapes[3 * level] + offset[1] - T(0.5);
          const Taps<T> taps = locate(s, level, head, x, y);
          T dots[4] = {0, 0, 0, 0};
          for (int corner = 0; corner < 4; ++corner) {
            if (taps.cell[corner] < 0) continue;
            const T* cell = value + start + taps.cell[corner];
            T* grad_cell = grad_value + start + taps.cell[corner];
            const T share = weights[i] * taps.share[corner];
            T dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t c = 0; c < channels; ++c) {
              dot += grad[c] * cell[c];
              grad_cell[c] += share * grad[c];
            }
            dots[corner] = dot;
          }
          agreement[i] = 0;
          for (int corner = 0; corner < 4; ++corner) agreement[i] += taps.share[corner] * dots[corner];
          mean += weights[i] * agreement[i];
          T* grad_offset = grad_offsets + (place * readings + i) * 2;
          grad_offset[0] = weights[i] * ((1 - taps.below) * (dots[1] - dots[0]) + taps.below * (dots[3] - dots[2]));
          grad_offset[1] = weights[i] * ((1 - taps.right) * (dots[2] - dots[0]) + taps.right * (dots[3] - dots[1]));
        }
        for (int64_t i = 0; i < readings; ++i) {
          grad_logits[place * readings + i] = weights[i] * (agreement[i] - mean);
        }
      }
    }
  }
}

template <typename T>
void run_forward(const Sizes& s, const T* value, const T* reference, const T* offsets, const T* logits, T* output,
                 int threads) {
  if (s.channels == 32) return forward<T, 32>(s, value, reference, offsets, logits, output, threads);
  return forward<T, 0>(s, value, reference, offsets, logits, output, threads);
}

template <typename T>
void run_backward(const Sizes& s, const T* value, const T* reference, const T* offsets, const T* logits,
                  const T* grad_output, T* grad_value, T* grad_offsets, T* grad_logits, int threads) {
  if (s.channels == 32) {
    return backward<T, 32>(s, value, reference, offsets, logits, grad_output, grad_value, grad_offsets, grad_logits,
                           threads);
  }
  return backward<T, 0>(s, value, reference, offsets, logits, grad_output, grad_value, grad_offsets, grad_logits,
                        threads);
}

}  // namespace

extern "C" {

void forward_float32(const Sizes* s, const float* value, const float* reference, const float* offsets,
                     const float* logits, float* output, int threads) {
  run_forward(*s, value, reference, offsets, logits, output, threads);
}

void forward_float64(const Sizes* s, const double* value, const double* reference, const double* offsets,
                     const double* logits, double* output, int threads) {
  run_forward(*s, value, reference, offsets, logits, output, threads);
}

void backward_float32(const Sizes* s, const float* value, const float* reference, const float* offsets,
                      const float* logits, const float* grad_output, float* grad_value, float* grad_offsets,
                      float* grad_logits, int threads) {
  run_backward(*s, value, reference, offsets, logits, grad_output, grad_value, grad_offsets, grad_logits, threads);
}

void backward_float64(const Sizes* s, const double* value, const double* reference, const double* offsets,
                      const double* logits, const double* grad_output, double* grad_value, double* grad_offsets,
                      double* grad_logits, int threads) {
  run_backward(*s, value, reference, offsets, logits, grad_output, grad_value, grad_offsets, grad_logits, threads);
}

}  // extern "C"
