//! `unsafe` is confined to the `sys` modules.

use proc_macro2::{TokenStream, TokenTree};

use super::{RustFile, Violation};

/// Reports each `unsafe` keyword outside `src/sys.rs` and `src/sys/`.
pub(super) fn check(source: &RustFile<'_>) -> Vec<Violation> {
    if source.path.ends_with("/src/sys.rs") || source.path.contains("/src/sys/") {
        return Vec::new();
    }
    let mut lines = Vec::new();
    collect_unsafe(source.tokens.clone(), &mut lines);
    lines
        .into_iter()
        .map(|line| Violation::at(source.path, line, "unsafe outside of sys"))
        .collect()
}

fn collect_unsafe(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect_unsafe(group.stream(), lines),
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}
