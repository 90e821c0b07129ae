// Choosing uncertain points of mask logits and reading masks at points, on the CPU (PointRend, arXiv 1912.08193, 3.1).
//
// Layouts, all contiguous: maps N H W, candidates N S 2 and points N P 2 (xy in [0, 1]), ids B Z H2 W2: maps of segment
// indices in Z slices with a frame of one pixel. Pair n looks at image `images[n]`; an id is void for it if it is
// `void_id` or `crowd - labels[n]`.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct Sizes {
  int64_t pairs, height, width, candidates, points, slices, framed_height, framed_width;
  int32_t void_id, crowd;
};

constexpr uint32_t kUnusable = 0xFFFFFFFFu;
constexpr int kBuckets = 4096, kShift = 20;

// How far each candidate's logit is from zero, as bits that sort like the numbers; kUnusable where it is void.
void distances(const Sizes& s, const float* padded, const float* candidates, const int32_t* ids, int32_t crowd,
               float* logits, uint32_t* keys) {
  const int32_t width = s.width, height = s.height, row = width + 2;
#pragma omp simd
  for (int64_t i = 0; i < s.candidates; ++i) {
    // In the map with a border of zeros; never negative, so that truncating rounds down.
    const float x = candidates[2 * i] * width + 0.5f, y = candidates[2 * i + 1] * height + 0.5f;
    const int32_t left = static_cast<int32_t>(x), top = static_cast<int32_t>(y);
    const float right = x - left, below = y - top;
    const float* cell = padded + top * row + left;
    logits[i] = (cell[0] * (1 - right) + cell[1] * right) * (1 - below) +
                (cell[row] * (1 - right) + cell[row + 1] * right) * below;
  }
  const int32_t inner_width = s.framed_width - 2, inner_height = s.framed_height - 2;
#pragma omp simd
  for (int64_t i = 0; i < s.candidates; ++i) {
    const int32_t column = std::min(static_cast<int32_t>(candidates[2 * i] * inner_width), inner_width - 1);
    const int32_t line = std::min(static_cast<int32_t>(candidates[2 * i + 1] * inner_height), inner_height - 1);
    const int32_t id = ids[(line + 1) * (inner_width + 2) + column + 1];
    uint32_t bits;
    std::memcpy(&bits, logits + i, sizeof(bits));
    keys[i] = id == s.void_id || id == crowd ? kUnusable : bits & 0x7FFFFFFFu;
  }
}

// The candidates with the `count` smallest keys, in no order.
void keep_smallest(const uint32_t* keys, const float* candidates, int64_t total, int64_t count, float* kept) {
  std::vector<int64_t> sizes(kBuckets, 0);
  for (int64_t i = 0; i < total; ++i) ++sizes[keys[i] >> kShift];
  int64_t before = 0;
  uint32_t last = 0;
  while (before + sizes[last] < count) before += sizes[last++];
  std::vector<int64_t> border;  // candidates of the bucket that is kept in part
  border.reserve(sizes[last]);
  int64_t written = 0;
  for (int64_t i = 0; i < total; ++i) {
    const uint32_t bucket = keys[i] >> kShift;
    if (bucket < last) {
      std::memcpy(kept + 2 * written++, candidates + 2 * i, 2 * sizeof(float));
    } else if (bucket == last) {
      border.push_back(i);
    }
  }
  const int64_t rest = count - before;
  std::nth_element(border.begin(), border.begin() + rest, border.end(),
                   [keys](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  for (int64_t i = 0; i < rest; ++i) {
    std::memcpy(kept + 2 * written++, candidates + 2 * border[i], 2 * sizeof(float));
  }
}

}  // namespace

extern "C" {

void pick_uncertain(const Sizes* sizes, const float* maps, const float* candidates, const int32_t* ids,
                    const int64_t* images, const int64_t* labels, float* points, int threads) {
  const Sizes& s = *sizes;
  const int64_t framed = s.framed_height * s.framed_width, row = s.width + 2;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> padded((s.height + 2) * row, 0.0f), logits(s.candidates);
    std::vector<uint32_t> keys(s.candidates);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.pairs; ++n) {
      for (int64_t y = 0; y < s.height; ++y) {
        const float* line = maps + (n * s.height + y) * s.width;
        std::copy(line, line + s.width, padded.begin() + (y + 1) * row + 1);
      }
      const float* own = candidates + n * s.candidates * 2;
      const int32_t crowd = s.crowd - static_cast<int32_t>(labels[n]);
      distances(s, padded.data(), own, ids + images[n] * s.slices * framed, crowd, logits.data(), keys.data());
      keep_smallest(keys.data(), own, s.candidates, s.points, points + n * s.points * 2);
    }
  }
}

void read_pairs(const Sizes* sizes, const float* points, const int32_t* ids, const int64_t* images,
                const int64_t* segments, const int64_t* labels, float* masks, float* validity, int threads) {
  const Sizes& s = *sizes;
  const int64_t framed = s.framed_height * s.framed_width;
  const int32_t row = s.framed_width;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < s.pairs; ++n) {
    const int32_t crowd = s.crowd - static_cast<int32_t>(labels[n]), segment = segments[n];
    const float* own = points + n * s.points * 2;
    const int32_t* first = ids + images[n] * s.slices * framed;
    float* mask = masks + n * s.points;
    float* weights = validity + n * s.points;
    for (int64_t slice = 0; slice < s.slices; ++slice) {
      const int32_t* map = first + slice * framed;
#pragma omp simd
      for (int64_t i = 0; i < s.points; ++i) {
        const float x = own[2 * i] * (row - 2) + 0.5f, y = own[2 * i + 1] * (s.framed_height - 2) + 0.5f;
        const int32_t left = static_cast<int32_t>(x), top = static_cast<int32_t>(y);
        const float right = x - left, below = y - top;
        const int32_t* cell = map + top * row + left;
        const float shares[4] = {(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below};
        const int32_t found[4] = {cell[0], cell[1], cell[row], cell[row + 1]};
        float inside = 0, certain = 0;
        for (int corner = 0; corner < 4; ++corner) {
          inside += found[corner] == segment ? shares[corner] : 0.0f;
          certain += found[corner] != s.void_id && found[corner] != crowd ? shares[corner] : 0.0f;
        }
        mask[i] = slice ? mask[i] + inside : inside;
        weights[i] = slice ? weights[i] : certain;
      }
    }
  }
}

}  // extern "C"
