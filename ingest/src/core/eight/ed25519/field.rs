//! Numbers modulo p = 2^255 - 19, eight side by side: five limbs of 51 bits, so that sums have a bit to
//! spare in the 52 that the multiplier takes.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
};

use fearless_simd::Avx512;

use super::super::limbs::{self, LANES, either, lane, same, store_all};

pub(super) const LIMBS: usize = 5;
pub(super) const LIMB_BITS: usize = 51;
pub(super) const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;
/// p in limbs.
pub(super) const P: [u64; LIMBS] = [LIMB_MASK - 18, LIMB_MASK, LIMB_MASK, LIMB_MASK, LIMB_MASK];

/// A number modulo p in each lane. Every limb is below 2^51 + 2^15.
#[derive(Clone, Copy)]
pub(super) struct Element(pub(super) [__m512i; LIMBS]);

impl Element {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn same(limbs: [u64; LIMBS]) -> Element {
        Element(same(&limbs))
    }

    /// Hands on what each limb has above 51 bits; limbs may have all 64.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    pub(super) fn carried(limbs: [__m512i; LIMBS]) -> Element {
        let mask = _mm512_set1_epi64(LIMB_MASK.cast_signed());
        // Loops, here and below: a closure has no part in its caller's processor features before it is inlined, and what
        // calls it (`map`, `from_fn`) has none at all; whether they become one depends on the neighbourhood.
        let (mut carries, mut kept) = (limbs, limbs);
        for i in 0..LIMBS {
            carries[i] = _mm512_srli_epi64::<51>(limbs[i]);
            kept[i] = _mm512_and_si512(limbs[i], mask);
        }
        // 2^255 is 19.
        let around = _mm512_mullo_epi64(carries[LIMBS - 1], _mm512_set1_epi64(19));
        let mut sums = kept;
        sums[0] = _mm512_add_epi64(kept[0], around);
        for i in 1..LIMBS {
            sums[i] = _mm512_add_epi64(kept[i], carries[i - 1]);
        }
        Element(sums)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    pub(super) fn plus(self, other: Element) -> Element {
        let mut sums = self.0;
        for (sum, limb) in sums.iter_mut().zip(other.0) {
            *sum = _mm512_add_epi64(*sum, limb);
        }
        Element::carried(sums)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    pub(super) fn minus(self, other: Element) -> Element {
        let mut sums = self.0;
        for ((sum, limb), p) in sums.iter_mut().zip(other.0).zip(P) {
            // Twice p, limb by limb, is more than is taken away.
            let above = _mm512_add_epi64(*sum, _mm512_set1_epi64((2 * p).cast_signed()));
            *sum = _mm512_sub_epi64(above, limb);
        }
        Element::carried(sums)
    }

    /// Sums of the lower and of the upper halves of products, by place, become an element.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    pub(super) fn reduced(low: [__m512i; 2 * LIMBS], high: [__m512i; 2 * LIMBS]) -> Element {
        let nineteen = _mm512_set1_epi64(19);
        // An upper half counts 2^52, which is twice the next place.
        let mut places = low;
        for i in 0..2 * LIMBS {
            places[i] = _mm512_add_epi64(low[i], _mm512_slli_epi64::<1>(high[i]));
        }
        let mut sums = [nineteen; LIMBS];
        for i in 0..LIMBS {
            let around = _mm512_mullo_epi64(places[i + LIMBS], nineteen);
            sums[i] = _mm512_add_epi64(places[i], around);
        }
        Element::carried(sums)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn times(self, other: Element) -> Element {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 2 * LIMBS], [zero; 2 * LIMBS]);
        for i in 0..LIMBS {
            for j in 0..LIMBS {
                low[i + j] = _mm512_madd52lo_epu64(low[i + j], self.0[i], other.0[j]);
                high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], self.0[i], other.0[j]);
            }
        }
        Element::reduced(low, high)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn squared(self) -> Element {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 2 * LIMBS], [zero; 2 * LIMBS]);
        for i in 0..LIMBS {
            for j in i + 1..LIMBS {
                low[i + j] = _mm512_madd52lo_epu64(low[i + j], self.0[i], self.0[j]);
                high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], self.0[i], self.0[j]);
            }
        }
        for i in 0..2 * LIMBS {
            low[i] = _mm512_slli_epi64::<1>(low[i]);
            high[i] = _mm512_slli_epi64::<1>(high[i]);
        }
        for i in 0..LIMBS {
            low[2 * i] = _mm512_madd52lo_epu64(low[2 * i], self.0[i], self.0[i]);
            high[2 * i + 1] = _mm512_madd52hi_epu64(high[2 * i + 1], self.0[i], self.0[i]);
        }
        Element::reduced(low, high)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn squared_times(self, times: u32) -> Element {
        let mut element = self;
        for _ in 0..times {
            element = element.squared();
        }
        element
    }

    /// To the power of 2^250 - 1, and of 11.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn power_250(self) -> (Element, Element) {
        let two = self.squared();
        let nine = two.squared_times(2).times(self);
        let eleven = nine.times(two);
        // Of 2^n - 1, for the n in the name.
        let of_5 = eleven.squared().times(nine);
        let of_10 = of_5.squared_times(5).times(of_5);
        let of_20 = of_10.squared_times(10).times(of_10);
        let of_40 = of_20.squared_times(20).times(of_20);
        let of_50 = of_40.squared_times(10).times(of_10);
        let of_100 = of_50.squared_times(50).times(of_50);
        let of_200 = of_100.squared_times(100).times(of_100);
        (of_200.squared_times(50).times(of_50), eleven)
    }

    /// To the power of p - 2 = 2^255 - 21.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn inverse(self) -> Element {
        let (of_250, eleven) = self.power_250();
        of_250.squared_times(5).times(eleven)
    }

    /// To the power of (p - 5) / 8 = 2^252 - 3.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub(super) fn power_of_root(self) -> Element {
        let (of_250, _) = self.power_250();
        of_250.squared_times(2).times(self)
    }

    /// Takes the other's where the mask has its bit.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn or(self, mask: __mmask8, other: Element) -> Element {
        Element(either(mask, self.0, other.0))
    }

    /// The one number between 0 and p in each lane.
    #[inline]
    pub(super) fn numbers(self, here: Avx512) -> [[u64; LIMBS]; LANES] {
        let lanes = store_all(here, self.0);
        std::array::from_fn(|i| canonical(lane(&lanes, i)))
    }
}

/// Limbs that may be somewhat above 51 bits, as the one number between 0 and p.
pub(super) fn canonical(mut limbs: [u64; LIMBS]) -> [u64; LIMBS] {
    // Twice: the first carry around may leave the number at p or somewhat above.
    for _ in 0..2 {
        let mut carry = 0;
        for limb in &mut limbs {
            let sum = *limb + carry;
            *limb = sum & LIMB_MASK;
            carry = sum >> LIMB_BITS;
        }
        limbs[0] += 19 * carry;
    }
    let is_p_or_more = limbs[0] >= P[0] && limbs[1..].iter().all(|&limb| limb == LIMB_MASK);
    if is_p_or_more { [limbs[0] - P[0], 0, 0, 0, 0] } else { limbs }
}

pub(super) fn limbs_of(bytes: &[u8]) -> [u64; LIMBS] {
    limbs::limbs_of::<LIMB_BITS, LIMBS>(bytes)
}
