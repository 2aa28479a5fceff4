//! `cargo xtask tidy`: the rules of this code base that a machine can check.
//!
//! Each rule is a module that maps text to [`Violation`]s. Only [`tree`] and [`packages`] read the disk.
//!
//! | module | rule |
//! | --- | --- |
//! | [`dependencies`] | allowed dependencies between crates |
//! | [`import_cycles`] | modules of a crate import each other without a cycle |
//! | [`layout`] | length and name of a file, first lines of a crate |
//! | [`links`] | relative links resolve, no document contains a path of a developer's machine |
//! | [`promises`] | each promise names tests or load scenarios that exist |
//! | [`test_names`] | length of a test's name, name of its module |
//! | [`unsafe_code`] | `unsafe` only in `sys` |
//! | [`words`] | prose and names use the field's terms |

mod dependencies;
mod import_cycles;
mod layout;
mod links;
mod packages;
mod promises;
mod rust_text;
mod syntax;
mod test_functions;
mod test_names;
mod tree;
mod unsafe_code;
mod violation;
mod words;

use anyhow::{Result, bail};

use self::{packages::Package, syntax::RustFile, tree::File, violation::Violation};
use crate::workspace::Workspace;

/// Checks every rule and prints each violation.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let files = tree::read(workspace)?;
    let packages = packages::read(workspace)?;
    let violations = check(&files, &packages);
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("tidy found {} violations", violations.len());
    }
    eprintln!(
        "tidy: no violations in {} files of {} crates",
        files.len(),
        packages.len()
    );
    Ok(())
}

fn check(files: &[File], packages: &[Package]) -> Vec<Violation> {
    let (sources, mut violations) = syntax::parse(files);
    violations.extend(dependencies::check(packages));
    for source in &sources {
        violations.extend(unsafe_code::check(source));
    }
    for file in files {
        violations.extend(layout::check(file));
        violations.extend(links::check_machine_paths(file));
        violations.extend(links::check_links(file, files));
        violations.extend(words::check(file));
    }
    violations.extend(layout::check_roots(files, packages));
    violations.extend(import_cycles::check(&sources, packages));
    let tests = test_functions::collect(&sources, packages);
    violations.extend(test_names::check(&tests));
    violations.extend(promises::check(files, &tests));
    violations
}

#[cfg(test)]
mod tests;
