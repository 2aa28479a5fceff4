//! Access tokens.

use pool_api::Secret;
use rand::RngCore;

/// Generates a token of 160 random bits: 40 hexadecimal digits.
pub(super) fn generate() -> Secret {
    let mut bytes = [0; 20];
    rand::rng().fill_bytes(&mut bytes);
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(digits)
}
