/* SipHash-1-3 (Aumasson, Bernstein): a hash with a secret, so that nobody can choose packets that fall together. */
#ifndef FAIRLEAD_SIPHASH_H
#define FAIRLEAD_SIPHASH_H

#include <stdint.h>
#include <string.h>

#define ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define ROUND                                                                                                          \
    do {                                                                                                               \
        v0 += v1, v1 = ROTATE(v1, 13) ^ v0, v0 = ROTATE(v0, 32);                                                       \
        v2 += v3, v3 = ROTATE(v3, 16) ^ v2;                                                                            \
        v0 += v3, v3 = ROTATE(v3, 21) ^ v0;                                                                            \
        v2 += v1, v1 = ROTATE(v1, 17) ^ v2, v2 = ROTATE(v2, 32);                                                       \
    } while (0)

static uint64_t
siphash(const uint64_t secret[2], const unsigned char *data, size_t size)
{
    uint64_t v0 = secret[0] ^ 0x736f6d6570736575, v1 = secret[1] ^ 0x646f72616e646f6d;
    uint64_t v2 = secret[0] ^ 0x6c7967656e657261, v3 = secret[1] ^ 0x7465646279746573;
    uint64_t word;
    size_t left = size;
    for (; left >= 8; left -= 8, data += 8) {
        memcpy(&word, data, 8);
        v3 ^= word;
        ROUND;
        v0 ^= word;
    }
    word = 0;
    memcpy(&word, data, left);
    word ^= (uint64_t)size << 56;
    v3 ^= word;
    ROUND;
    v0 ^= word;
    v2 ^= 0xff;
    ROUND;
    ROUND;
    ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#undef ROUND
#undef ROTATE

#endif
