//! Modules of a crate import each other without a cycle.
//!
//! An import is a path in code, in a `use` declaration, in a macro call or in an attribute, followed through re-exports to
//! the module that defines its target. Each import is an edge between two siblings: the children of the innermost module
//! that contains both ends, each with its whole subtree. An import of a parent's or a child's own items is no edge, so an
//! `impl` may be split over the children of a type's module. Test code is ignored.

mod graph;
mod modules;
mod references;

use self::{graph::Graph, modules::Modules};
use super::{Package, RustFile, Violation};

/// Reports each import cycle of each library and program.
pub(super) fn check(sources: &[RustFile<'_>], packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        for root in &package.roots {
            let modules = Modules::read(root, sources);
            for cycle in graph(&modules).cycles() {
                violations.push(Violation::of(&package.name, cycle.to_string()));
            }
        }
    }
    violations
}

fn graph(modules: &Modules) -> Graph {
    let mut graph = Graph::default();
    for (from, module) in modules.iter() {
        for reference in &module.references {
            if let Some(to) = modules.resolve(from, &reference.segments) {
                graph.add(from, &to, || reference.place(&module.file));
            }
        }
    }
    graph
}

#[cfg(test)]
mod tests;
