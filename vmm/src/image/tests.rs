use proptest::prelude::*;

use super::*;

fn header(version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(blake3::hash(payload).as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn machine_image_of_another_version_is_rejected() {
    assert!(matches!(
        MachineState::decode(&header(9, b"")),
        Err(ImageError::Version(9))
    ));
}

#[test]
fn machine_image_truncated_anywhere_is_rejected() {
    let valid = header(VERSION, &[7; 100]);
    for len in 8..valid.len() {
        assert!(
            matches!(
                MachineState::decode(&valid[..len]),
                Err(ImageError::Truncated { .. })
            ),
            "{len}"
        );
    }
}

#[test]
fn flipped_bit_in_machine_image_is_detected() {
    let mut bytes = header(VERSION, &[7; 100]);
    bytes[HEADER_LEN + 50] ^= 4;
    assert!(matches!(
        MachineState::decode(&bytes),
        Err(ImageError::Digest)
    ));
}

proptest! {
    #[test]
    fn random_bytes_as_machine_image_are_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(MachineState::decode(&bytes).is_err());
    }

    #[test]
    fn random_payload_with_valid_digest_is_rejected(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(MachineState::decode(&header(VERSION, &payload)).is_err());
    }
}
