/*
 * How fast memory is read in 256 bits: a part of a large array, the next part, and so on around, as a decode reads weights.
 *
 * native-stream MS BYTES PART STREAMS: for about MS milliseconds, reads parts of PART bytes of an array of BYTES, in so many
 * streams (1 or 4) side by side, and prints what each took, in ms. PART is a multiple of 512 and goes into BYTES.
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* A stream is 128 bytes further at each step. Returns what it computed, so that nothing is left out. */
static int add_up(const char *from, long bytes, int streams) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  const long ofStream = bytes / streams;
  for (long at = 0; at < ofStream; at += 128) {
    for (int s = 0; s < streams; s++) {
      const __m256i *p = (const __m256i *)(from + s * ofStream + at);
      for (int i = 0; i < 4; i++) sum[i] = _mm256_add_epi32(sum[i], _mm256_load_si256(p + i));
    }
  }
  sum[0] = _mm256_add_epi32(_mm256_add_epi32(sum[0], sum[1]), _mm256_add_epi32(sum[2], sum[3]));
  return _mm256_extract_epi32(sum[0], 0);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  const double ms = atof(argv[1]);
  const long bytes = atol(argv[2]), part = atol(argv[3]);
  const int streams = atoi(argv[4]);
  char *array = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!array) return 1;
  memset(array, 1, bytes);
  volatile int kept;
  const double end = now() + ms;
  long at = 0;
  do {
    const double start = now();
    kept = streams == 4 ? add_up(array + at, part, 4) : add_up(array + at, part, 1);
    printf("%.6f\n", now() - start);
    at = (at + part) % bytes;
  } while (now() < end);
  (void)kept;
  return 0;
}
