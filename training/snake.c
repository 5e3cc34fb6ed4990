/* The decoder's activation and its gradient in one pass each; see snake.py. Compiled with -O3 -march=native -ffast-math. */
#include <math.h>

/* sin and cos by polynomials after reduction to [-pi/2, pi/2]; the sign lost there falls out of sin^2 and of sin * cos. */
static inline void reduce(float t, float *s, float *c) {
    float r = t - 3.14159265358979f * rintf(t * 0.318309886183791f);
    float q = r * r;
    *s = r * (1.0f + q * (-0.16666667f + q * (8.3333310e-3f + q * (-1.9840874e-4f + q * 2.7525562e-6f))));
    *c = 1.0f + q * (-0.5f + q * (4.1666642e-2f + q * (-1.3888397e-3f + q * 2.4760495e-5f)));
}

void forward(const float *x, const float *a, const float *ib, float *y, long rows, long channels, long n) {
#pragma omp parallel for
    for (long row = 0; row < rows; row++) {
        const float A = a[row % channels], B = ib[row % channels];
        const float *X = x + row * n;
        float *Y = y + row * n;
        for (long i = 0; i < n; i++) {
            float s, c;
            reduce(A * X[i], &s, &c);
            Y[i] = X[i] + B * s * s;
        }
    }
}

/* gx: gradient of x; ga, gib: one sum a row */
void backward(const float *x, const float *g, const float *a, const float *ib, float *gx, float *ga, float *gib, long rows,
              long channels, long n) {
#pragma omp parallel for
    for (long row = 0; row < rows; row++) {
        const float A = a[row % channels], B = ib[row % channels];
        const float *X = x + row * n, *G = g + row * n;
        float *GX = gx + row * n, sa = 0, sb = 0;
        for (long i = 0; i < n; i++) {
            float s, c;
            reduce(A * X[i], &s, &c);
            float slope = 2 * s * c;
            GX[i] = G[i] * (1 + A * B * slope);
            sa += G[i] * X[i] * slope;
            sb += G[i] * s * s;
        }
        ga[row] = B * sa;
        gib[row] = sb;
    }
}
