/*
 * What one core can do at most in 256 bits: fused multiply-adds on registers alone.
 *
 * native-peak MS FLOPS: for about MS milliseconds, does FLOPS floating-point operations again and again, and prints what each
 * time took, in ms.
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Independent sums: two instructions each cycle, four cycles each, and some to spare. */
#define SUMS 12
#define FLOPS_PER_ROUND (SUMS * 8 * 2)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Returns what it computed, so that nothing is left out. */
static float multiply_add(long rounds) {
  __m256 sum[SUMS], x = _mm256_set1_ps(0.5f), w = _mm256_set1_ps(0.5f);
  for (int i = 0; i < SUMS; i++) sum[i] = _mm256_set1_ps((float)i);
  for (long round = 0; round < rounds; round++) {
    for (int i = 0; i < SUMS; i++) sum[i] = _mm256_fmadd_ps(sum[i], x, w);
  }
  for (int i = 1; i < SUMS; i++) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const double end = now() + atof(argv[1]);
  const long rounds = (long)(atof(argv[2]) / FLOPS_PER_ROUND);
  volatile float kept;
  do {
    const double start = now();
    kept = multiply_add(rounds);
    printf("%.6f\n", now() - start);
  } while (now() < end);
  (void)kept;
  return 0;
}
