//! Rust files, parsed.

use proc_macro2::TokenStream;

use super::{tree::File, violation::Violation};

/// A Rust file, as tokens and as a syntax tree.
pub(super) struct RustFile<'a> {
    pub(super) path: &'a str,
    pub(super) tokens: TokenStream,
    pub(super) syntax: syn::File,
}

/// Parses every Rust file; a file that does not parse is a violation.
pub(super) fn parse(files: &[File]) -> (Vec<RustFile<'_>>, Vec<Violation>) {
    let mut sources = Vec::new();
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        match parse_text(&file.text) {
            Ok((tokens, syntax)) => sources.push(RustFile {
                path: &file.path,
                tokens,
                syntax,
            }),
            Err(error) => violations.push(Violation::of(
                &file.path,
                format!("not valid Rust: {error}"),
            )),
        }
    }
    (sources, violations)
}

fn parse_text(text: &str) -> syn::Result<(TokenStream, syn::File)> {
    let tokens: TokenStream = text.parse()?;
    Ok((tokens, syn::parse_file(text)?))
}
