use super::*;
use crate::tidy::{syntax, tree::File};

/// The cycles of a crate `a` with these files below `a/src`.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<File> = files
        .iter()
        .map(|(path, text)| File {
            path: format!("a/src/{path}"),
            text: (*text).to_owned(),
        })
        .collect();
    let (sources, violations) = syntax::parse(&files);
    assert_eq!(violations, []);
    check(&sources, &[Package::example("a", "a", &[])])
        .iter()
        .map(ToString::to_string)
        .collect()
}

const TWO: &str = "mod x; mod y;";

#[test]
fn cycle_is_reported_with_one_line_for_each_import() {
    let found = cycles(&[
        ("lib.rs", "mod x; mod y; mod z;"),
        ("x.rs", "use crate::y::Y;\nstruct X;"),
        ("y.rs", "struct Y;\n\nuse super::z;"),
        ("z.rs", "fn f(_: crate::x::X) {}"),
    ]);
    assert_eq!(
        found,
        ["a: import cycle x -> y -> z -> x\
          \n    x: a/src/x.rs:1 (crate::y::Y)\
          \n    y: a/src/y.rs:3 (super::z)\
          \n    z: a/src/z.rs:1 (crate::x::X)"]
    );
}

#[test]
fn edges_of_a_subtree_count_for_its_root() {
    let found = cycles(&[
        ("lib.rs", TWO),
        ("x.rs", "mod deep;"),
        ("x/deep.rs", "use crate::y::Y;"),
        ("y.rs", "pub struct Y;\nmod deep;"),
        ("y/deep.rs", "use super::super::x;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("y: a/src/y/deep.rs:1"), "{}", found[0]);
}

#[test]
fn siblings_are_checked_at_every_level() {
    let found = cycles(&[
        ("lib.rs", "mod x;"),
        ("x.rs", "mod p; mod q;"),
        ("x/p.rs", "use super::q::Q;\npub struct P;"),
        ("x/q.rs", "use crate::x::p::P;\npub struct Q;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("x::p -> x::q -> x::p"), "{}", found[0]);
}

#[test]
fn imports_between_parent_and_child_are_no_cycle() {
    let found = cycles(&[
        ("lib.rs", "mod x; pub use x::X; struct Root;"),
        ("x.rs", "mod p; use self::p::P; pub struct X(P);"),
        (
            "x/p.rs",
            "use super::X; use crate::Root; pub struct P;\nimpl X {}",
        ),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn reexports_are_followed_to_the_definition() {
    let reexport = |y: &str| {
        cycles(&[
            (
                "lib.rs",
                "mod x; mod y; pub use y::Y; pub use self::x::{inner::*, X as Z};",
            ),
            ("x.rs", "pub mod inner; use crate::Y; pub struct X;"),
            ("x/inner.rs", "pub fn f() {}"),
            ("y.rs", y),
        ])
    };
    for y in [
        "use crate::Z; pub struct Y;",
        "pub struct Y; fn g() { crate::f() }",
        "use crate as root; pub struct Y; fn g() { root::f() }",
        "use super::{x::{self as it}}; pub struct Y;",
    ] {
        assert_eq!(reexport(y).len(), 1, "{y}");
    }
    assert_eq!(reexport("pub struct Y; use std::f;"), [""; 0]);
}

#[test]
fn macros_attributes_and_function_bodies_are_searched() {
    for y in [
        "pub struct Y; fn f() { g!(1, [crate::x::X]); }",
        "#[derive(D)] pub struct Y { #[serde(with = \"crate::x\")] f: u8 }",
        "#[derive(D)] pub struct Y { #[arg(parser = crate::x::parse)] f: u8 }",
        "pub struct Y; fn f() { use crate::x::X; }",
        "pub struct Y; macro_rules! m { () => { $crate::x::X } }",
    ] {
        let found = cycles(&[
            ("lib.rs", TWO),
            ("x.rs", "use crate::y::Y; pub struct X;"),
            ("y.rs", y),
        ]);
        assert_eq!(found.len(), 1, "{y}");
    }
}

#[test]
fn test_code_is_ignored() {
    for y in [
        "pub struct Y; #[cfg(test)] mod tests { use crate::x::X; }",
        "pub struct Y; #[cfg(test)] mod tests;",
        "pub struct Y; #[cfg(all(test, unix))] use crate::x::X;",
        "pub struct Y; impl Y { #[cfg(test)] fn f() { crate::x::g() } }",
        "//! [`crate::x::X`]\npub struct Y; // crate::x::X\n",
    ] {
        let found = cycles(&[
            ("lib.rs", TWO),
            ("x.rs", "use crate::y::Y; pub struct X;"),
            ("y.rs", y),
            ("y/tests.rs", "use crate::x::X;"),
        ]);
        assert_eq!(found, [""; 0], "{y}");
    }
    let found = cycles(&[
        ("lib.rs", TWO),
        ("x.rs", "use crate::y::Y; pub struct X;"),
        ("y.rs", "pub struct Y; #[cfg(not(test))] use crate::x::X;"),
    ]);
    assert_eq!(found.len(), 1);
}

#[test]
fn inline_modules_and_looping_reexports_are_read() {
    let found = cycles(&[(
        "lib.rs",
        "mod x { pub use crate::y::A; pub struct X; } mod y { pub use crate::x::A; use crate::x::X; }",
    )]);
    assert_eq!(found.len(), 1);
}

#[test]
fn paths_in_inline_modules_start_there() {
    let found = cycles(&[(
        "lib.rs",
        "mod x { mod p { use super::y::B; } mod y { pub struct B; } } mod y { use crate::x; }",
    )]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn self_in_a_group_imports_the_module() {
    let found = cycles(&[
        ("lib.rs", "mod a; mod y; use a::x::{self};"),
        ("a.rs", "pub mod x; use crate::y::Y;"),
        ("a/x.rs", "pub struct X;"),
        ("y.rs", "pub struct Y; use crate::x::X;"),
    ]);
    assert_eq!(found.len(), 1);
}
