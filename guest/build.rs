//! Generates message types from `api/proto`. Needs no `protoc` binary.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTO: &str = "api/proto";
const FILES: [&str; 2] = ["process.proto", "filesystem.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(
        &descriptors,
        protox::compile(FILES, [PROTO])?.encode_to_vec(),
    )?;
    buffa_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&FILES)
        .generate_views(false)
        .generate_json(true)
        .preserve_unknown_fields(false)
        .bytes_type(buffa_build::BytesRepr::Bytes)
        .map_type(buffa_build::MapRepr::BTreeMap)
        .unbox_oneof()
        .include_file("messages.rs")
        .compile()?;
    Ok(())
}
