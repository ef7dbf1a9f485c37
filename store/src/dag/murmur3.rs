//! MurmurHash3 x64-128, first half: how HAMT directories spread names. It protects nothing and is used for nothing else.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The first 64 bits of MurmurHash3 x64-128 with seed 0, most significant byte first as HAMT directories consume them.
pub(super) fn hash(data: &[u8]) -> [u8; 8] {
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut chunks = data.chunks_exact(16);
    for chunk in &mut chunks {
        h1 = (h1 ^ mix1(word(&chunk[..8])))
            .rotate_left(27)
            .wrapping_add(h2)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(word(&chunk[8..])))
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let tail = chunks.remainder();
    // Absent tail bytes count as zero, and zero mixes to zero.
    h1 ^= mix1(word(&tail[..tail.len().min(8)]));
    h2 ^= mix2(word(&tail[tail.len().min(8)..]));
    let length = data.len() as u64;
    h1 ^= length;
    h2 ^= length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2)).to_be_bytes()
}

/// Up to eight bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

const fn mix1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

const fn mix2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

const fn finish(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_in_the_reference() {
        for (name, expected) in [
            ("", 0),
            ("a", 0x8555_5565_f659_7889),
            ("b", 0x7a98_a957_b1d3_d1ee),
            ("c", 0x8e38_df6c_4a1f_74d7),
            ("hello", 0xcbd8_a7b3_41bd_9b02),
            ("hello.txt", 0xdf19_ab11_5239_94d9),
            ("470.txt", 0x006e_88df_5847_e67c),
        ] {
            assert_eq!(
                u64::from_be_bytes(hash(name.as_bytes())),
                expected,
                "{name}"
            );
        }
        assert_eq!(hash(b"742.txt")[..4], [0x00, 0xff, 0x87, 0xd1]);
    }
}
