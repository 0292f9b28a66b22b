//! Numbers modulo the p of P-256, eight side by side, in Montgomery's form.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm_cvtsi64_si128, _mm512_add_epi64, _mm512_and_si512,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_sll_epi64, _mm512_slli_epi64, _mm512_srai_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
};

use fearless_simd::Avx512;

use super::super::limbs::{LANES, LIMB_BITS, LIMB_MASK, carried, either, lane, same, store_all};

pub(super) const LIMBS: usize = 5;
pub(super) type Number = [u64; LIMBS];

/// p = 2^256 - 2^224 + 2^192 + 2^96 - 1 in limbs.
pub(super) const P: Number = [LIMB_MASK, (1 << 44) - 1, 0, 1 << 36, 0xffff_ffff << 16];

/// A number modulo p in Montgomery's form in each lane, below 2p, in limbs of 52 bits.
#[derive(Clone, Copy)]
pub(super) struct Element(pub(super) [__m512i; LIMBS]);

/// A sum of elements whose limbs were not handed on yet.
#[derive(Clone, Copy)]
pub(super) struct Sum(pub(super) [__m512i; LIMBS]);

impl Element {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn same(number: &Number) -> Element {
        Element(same(number))
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn times(self, other: Element) -> Element {
        let zero = _mm512_setzero_si512();
        let constant = |limb: u64| _mm512_set1_epi64(limb.cast_signed());
        let (third, fourth) = (constant(P[3]), constant(P[4]));
        let (a, mut sums) = (self.0, [zero; LIMBS]);
        for b in other.0 {
            // p is -1 in its lowest limb: so many times p as the sum's lowest limb says makes it zero. Of
            // p + 1 are left 2^96 and the two highest limbs. The sums then move down by a limb.
            let m = _mm512_madd52lo_epu64(sums[0], a[0], b);
            let [_, second, ..] = sums;
            let next = _mm512_add_epi64(second, _mm512_srli_epi64::<52>(m));
            let next = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(next, a[0], b), a[1], b);
            let middle = constant(1 << 44);
            sums[0] = _mm512_madd52lo_epu64(next, m, middle);
            let next = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(sums[2], a[1], b), a[2], b);
            sums[1] = _mm512_madd52hi_epu64(next, m, middle);
            let next = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(sums[3], a[2], b), a[3], b);
            sums[2] = _mm512_madd52lo_epu64(next, m, third);
            let next = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(sums[4], a[3], b), a[4], b);
            let next = _mm512_madd52hi_epu64(next, m, third);
            sums[3] = _mm512_madd52lo_epu64(next, m, fourth);
            sums[4] = _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, a[4], b), m, fourth);
        }
        Element(carried(sums))
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn squared(self) -> Element {
        self.times(self)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn plus(self, other: Element) -> Element {
        Sum(self.0).and(other).settled()
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn minus(self, other: Element) -> Element {
        Sum(self.0).less(other, 0).settled()
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn or(self, mask: __mmask8, other: Element) -> Element {
        Element(either(mask, self.0, other.0))
    }

    /// The lanes in which it is zero modulo p.
    #[inline]
    pub(super) fn is_zero(self, here: Avx512) -> [bool; LANES] {
        let lanes = store_all(here, self.0);
        std::array::from_fn(|i| below(lane(&lanes, i), &P) == [0; LIMBS])
    }
}

impl Sum {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn and(self, other: Element) -> Sum {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_add_epi64(*limb, other);
        }
        Sum(limbs)
    }

    /// Less so many times the other: two to the power of `doublings`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn less(self, other: Element, doublings: u32) -> Sum {
        let shift = _mm_cvtsi64_si128(i64::from(doublings));
        let mut limbs = self.0;
        for ((limb, other), p) in limbs.iter_mut().zip(other.0).zip(P) {
            // Twice p is more than is taken away.
            let left = _mm512_sub_epi64(_mm512_set1_epi64((2 * p).cast_signed()), other);
            *limb = _mm512_add_epi64(*limb, _mm512_sll_epi64(left, shift));
        }
        Sum(limbs)
    }

    /// The sum, which must not be negative, with p taken away as often as keeps it so: what is left is hardly
    /// above p. It is as often as 2^256 fits, in which what the lower limbs hand on may be missing.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn settled(self) -> Element {
        let times = _mm512_srai_epi64::<48>(self.0[4]);
        let [a, b, c, d, e] = self.0;
        // 2^256 is p and 2^224 - 2^192 - 2^96 + 1.
        let mut limbs = [
            _mm512_add_epi64(a, times),
            _mm512_sub_epi64(b, _mm512_slli_epi64::<44>(times)),
            c,
            _mm512_sub_epi64(d, _mm512_slli_epi64::<36>(times)),
            _mm512_add_epi64(
                _mm512_and_si512(e, _mm512_set1_epi64((1 << 48) - 1)),
                _mm512_slli_epi64::<16>(times),
            ),
        ];
        let mask = _mm512_set1_epi64(LIMB_MASK.cast_signed());
        for i in 1..LIMBS {
            limbs[i] = _mm512_add_epi64(limbs[i], _mm512_srai_epi64::<52>(limbs[i - 1]));
            limbs[i - 1] = _mm512_and_si512(limbs[i - 1], mask);
        }
        Element(limbs)
    }
}

/// A number below twice the modulus, as the one below it.
pub(super) fn below(number: Number, modulus: &Number) -> Number {
    let mut borrow = 0;
    let difference = std::array::from_fn(|i| {
        let limb = number[i].cast_signed() - modulus[i].cast_signed() + borrow;
        borrow = limb >> LIMB_BITS;
        limb.cast_unsigned() & LIMB_MASK
    });
    if borrow < 0 { number } else { difference }
}
