//! Large numbers in limbs of 52 bits, the lowest first, and eight of them side by side.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_srli_epi64,
};

use fearless_simd::{Avx512, prelude::*, u64x8};

pub(super) const LIMB_BITS: usize = 52;
pub(super) const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;
/// Lanes of a vector register.
pub(super) const LANES: usize = 8;

/// Eight numbers of `L` limbs: the limbs of one place stand together.
pub(super) type Lanes<const L: usize> = [[u64; LANES]; L];

/// These four have no processor features of their own, so they must become part of a caller that has.
#[inline(always)]
pub(super) fn load(here: Avx512, lanes: &[u64; LANES]) -> __m512i {
    let lanes: u64x8<Avx512> = (*lanes).simd_into(here);
    lanes.into()
}

#[inline(always)]
pub(super) fn store(here: Avx512, vector: __m512i) -> [u64; LANES] {
    let lanes: u64x8<Avx512> = vector.simd_into(here);
    lanes.into()
}

#[inline(always)]
pub(super) fn load_all<const L: usize>(here: Avx512, lanes: &Lanes<L>) -> [__m512i; L] {
    // A loop: a closure would have no processor features before it is inlined.
    let mut limbs = [load(here, &[0; LANES]); L];
    for (limb, lanes) in limbs.iter_mut().zip(lanes) {
        *limb = load(here, lanes);
    }
    limbs
}

#[inline(always)]
pub(super) fn store_all<const L: usize>(here: Avx512, limbs: [__m512i; L]) -> Lanes<L> {
    let mut lanes = [[0; LANES]; L];
    for (lanes, limb) in lanes.iter_mut().zip(limbs) {
        *lanes = store(here, limb);
    }
    lanes
}

/// The same number in every lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn same<const L: usize>(limbs: &[u64; L]) -> [__m512i; L] {
    let mut all = [_mm512_setzero_si512(); L];
    for (vector, limb) in all.iter_mut().zip(limbs) {
        *vector = _mm512_set1_epi64(limb.cast_signed());
    }
    all
}

/// One number in each lane, or the other's where the mask has its bit.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn either<const L: usize>(
    mask: __mmask8,
    mut one: [__m512i; L],
    other: [__m512i; L],
) -> [__m512i; L] {
    for (limb, other) in one.iter_mut().zip(other) {
        *limb = _mm512_mask_blend_epi64(mask, *limb, other);
    }
    one
}

/// The limbs, of so many bits, of a number given in bytes, the lowest first; what does not fit is left out.
pub(super) fn limbs_of<const BITS: usize, const L: usize>(bytes: &[u8]) -> [u64; L] {
    std::array::from_fn(|i| {
        let bit = i * BITS;
        let from = &bytes[(bit / 8).min(bytes.len())..];
        let eight = from.first_chunk().map_or_else(
            || from.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            |eight| u64::from_le_bytes(*eight),
        );
        limb_within::<BITS>(eight, bit)
    })
}

/// The same of a number given in bytes, the highest first.
pub(super) fn limbs_of_be<const BITS: usize, const L: usize>(bytes: &[u8]) -> [u64; L] {
    std::array::from_fn(|i| {
        let bit = i * BITS;
        let upto = &bytes[..bytes.len().saturating_sub(bit / 8)];
        let eight = upto.last_chunk().map_or_else(
            || upto.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            |eight| u64::from_be_bytes(*eight),
        );
        limb_within::<BITS>(eight, bit)
    })
}

/// With up to seven bits before it, a limb of 57 bits and less stands in eight bytes.
fn limb_within<const BITS: usize>(eight: u64, bit: usize) -> u64 {
    (eight >> (bit % 8)) & ((1 << BITS) - 1)
}

/// The lowest 256 bits of a number in limbs of so many bits, in bytes, the lowest first.
pub(super) fn bytes_of<const BITS: usize, const L: usize>(limbs: &[u64; L]) -> [u8; 32] {
    std::array::from_fn(|i| {
        let (limb, bit) = (8 * i / BITS, 8 * i % BITS);
        let above = limbs.get(limb + 1).map_or(0, |above| above << (BITS - bit));
        ((limbs[limb] >> bit | above) & 0xff) as u8
    })
}

pub(super) fn is_below<const L: usize>(number: &[u64; L], bound: &[u64; L]) -> bool {
    number.iter().rev().lt(bound.iter().rev())
}

/// Puts the limbs or the digits of one number into a lane.
pub(super) fn set_lane<T: Copy, const L: usize>(
    lanes: &mut [[T; LANES]; L],
    lane: usize,
    number: &[T; L],
) {
    for (place, part) in lanes.iter_mut().zip(number) {
        place[lane] = *part;
    }
}

/// The number in a lane.
pub(super) fn lane<const L: usize>(lanes: &Lanes<L>, lane: usize) -> [u64; L] {
    std::array::from_fn(|i| lanes[i][lane])
}

/// `-1/n` modulo 2^52, of an odd number. Each step doubles the bits that are right (Newton); the
/// number itself has three.
pub(super) fn negative_inverse(n: u64) -> u64 {
    let mut inverse = n;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(n.wrapping_mul(inverse)));
    }
    inverse.wrapping_neg() & LIMB_MASK
}

/// The lanes of which something holds.
pub(super) fn mask(holds: impl Fn(usize) -> bool) -> __mmask8 {
    (0..LANES).fold(0, |mask, lane| mask | __mmask8::from(holds(lane)) << lane)
}

/// Signed digits of 4 bits, from -8 to 7, of a number given in bytes, the lowest first: the highest
/// digit first. There must be one for the last carry.
pub(super) fn digits_of_4<const N: usize>(bytes: &[u8]) -> [i64; N] {
    let mut digits = [0; N];
    let mut carry = 0;
    for (place, signed) in digits.iter_mut().rev().enumerate() {
        let byte = bytes.get(place / 2).copied().unwrap_or_default();
        let digit = i64::from(if place % 2 == 0 { byte & 15 } else { byte >> 4 }) + carry;
        carry = i64::from(digit >= 8);
        *signed = digit - 16 * carry;
    }
    digits
}

/// The same of 8 bits, from -128 to 127.
pub(super) fn digits_of_8<const N: usize>(bytes: &[u8]) -> [i16; N] {
    let mut digits = [0; N];
    let mut carry = 0;
    for (place, signed) in digits.iter_mut().rev().enumerate() {
        let digit = i16::from(bytes.get(place).copied().unwrap_or_default()) + carry;
        carry = i16::from(digit >= 128);
        *signed = digit - 256 * carry;
    }
    digits
}

/// Eight Montgomery products: `a·b/R` modulo an odd `n`, each between 0 and `2n`, for factors below
/// `2n` and `R = 2^(52 L)` above `4n`. `n0` is `-1/n` modulo 2^52.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn montgomery_product<const L: usize>(
    a: &[__m512i; L],
    b: &[__m512i; L],
    n: &[__m512i; L],
    n0: __m512i,
) -> [__m512i; L] {
    let zero = _mm512_setzero_si512();
    // Sums of up to 4 L halves of products, each below 2^52: there is room for 2^12 of them.
    let mut sums = [zero; L];
    for &b_i in b {
        let lowest = _mm512_madd52lo_epu64(sums[0], a[0], b_i);
        // So many times n makes the lowest limb zero; the sums then move down by a limb.
        let m = _mm512_madd52lo_epu64(zero, lowest, n0);
        let carry = _mm512_srli_epi64::<52>(_mm512_madd52lo_epu64(lowest, m, n[0]));
        for j in 0..L - 1 {
            let above = if j == 0 { _mm512_add_epi64(sums[1], carry) } else { sums[j + 1] };
            let sum = _mm512_madd52lo_epu64(above, a[j + 1], b_i);
            let sum = _mm512_madd52hi_epu64(sum, a[j], b_i);
            let sum = _mm512_madd52lo_epu64(sum, m, n[j + 1]);
            sums[j] = _mm512_madd52hi_epu64(sum, m, n[j]);
        }
        let sum = _mm512_madd52hi_epu64(zero, a[L - 1], b_i);
        sums[L - 1] = _mm512_madd52hi_epu64(sum, m, n[L - 1]);
    }
    carried(sums)
}

/// Goes through signatures eight by eight, and tells of those that verify by the number beside each. One
/// alone is not faster here.
pub(super) fn by_eight<'c, C: 'c>(
    checks: impl IntoIterator<Item = &'c (usize, C)>,
    found: &mut dyn FnMut(usize),
    verify: impl Fn(&[&'c C]) -> [bool; LANES],
) {
    let checks: Vec<&(usize, C)> = checks.into_iter().collect();
    for checks in checks.chunks(LANES).filter(|checks| checks.len() > 1) {
        let of_lanes: Vec<&C> = checks.iter().map(|(_, check)| check).collect();
        let verified = checks.iter().zip(verify(&of_lanes)).filter(|(_, verified)| *verified);
        verified.for_each(|((place, _), _)| found(*place));
    }
}

/// Puts signatures into their lanes, and says in which there is one now.
pub(super) fn lanes_set<C>(
    checks: &[&C],
    mut set: impl FnMut(usize, &C) -> Option<()>,
) -> [bool; LANES] {
    std::array::from_fn(|i| checks.get(i).is_some_and(|check| set(i, check).is_some()))
}

/// Hands on what each limb has above 52 bits.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn carried<const L: usize>(mut sums: [__m512i; L]) -> [__m512i; L] {
    let mask = _mm512_set1_epi64(LIMB_MASK.cast_signed());
    let mut carry = _mm512_setzero_si512();
    for limb in &mut sums {
        let sum = _mm512_add_epi64(*limb, carry);
        carry = _mm512_srli_epi64::<52>(sum);
        *limb = _mm512_and_si512(sum, mask);
    }
    sums
}
