//! Graphs of sibling modules, and their cycles.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use super::modules::ModulePath;

/// For each parent, which of its children import which, with the place of one such import.
#[derive(Debug, Default)]
pub(super) struct Graph {
    parents: BTreeMap<ModulePath, Siblings>,
}

type Siblings = BTreeMap<String, BTreeMap<String, String>>;

/// Siblings that import each other, with the place of each import.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cycle {
    parent: ModulePath,
    /// Each module, and the place where it imports the next; the last imports the first.
    imports: Vec<(String, String)>,
}

impl Graph {
    /// Adds an import, unless one end contains the other.
    pub(super) fn add(
        &mut self,
        from: &ModulePath,
        to: &ModulePath,
        place: impl FnOnce() -> String,
    ) {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let (Some(importer), Some(imported)) = (from.get(common), to.get(common)) else {
            return;
        };
        let siblings = self.parents.entry(from[..common].to_vec()).or_default();
        siblings
            .entry(importer.clone())
            .or_default()
            .entry(imported.clone())
            .or_insert_with(place);
    }

    /// The shortest cycle through each edge that is on one.
    pub(super) fn cycles(&self) -> BTreeSet<Cycle> {
        let mut cycles = BTreeSet::new();
        for (parent, siblings) in &self.parents {
            for (from, imports) in siblings {
                for to in imports.keys() {
                    if let Some(path) = shortest_path(siblings, to, from) {
                        cycles.insert(Cycle::new(parent, siblings, path));
                    }
                }
            }
        }
        cycles
    }
}

/// The modules on the shortest way from `from` to `to`, both included.
fn shortest_path<'a>(siblings: &'a Siblings, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut previous = BTreeMap::from([(from, None)]);
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let back = std::iter::successors(Some(at), |at| previous.get(at).copied().flatten());
            let mut path: Vec<&str> = back.collect();
            path.reverse();
            return Some(path);
        }
        for next in siblings.get(at).into_iter().flat_map(BTreeMap::keys) {
            if !previous.contains_key(next.as_str()) {
                previous.insert(next, Some(at));
                queue.push_back(next);
            }
        }
    }
    None
}

impl Cycle {
    /// Starts the cycle at its first module in alphabetical order, so that equal cycles compare equal.
    fn new(parent: &ModulePath, siblings: &Siblings, mut path: Vec<&str>) -> Self {
        let first = path.iter().enumerate().min_by_key(|(_, name)| **name);
        let first = first.map_or(0, |(at, _)| at);
        path.rotate_left(first);
        let next = path.iter().cycle().skip(1);
        let imports = path.iter().zip(next).map(|(from, to)| {
            let place = siblings.get(*from).and_then(|imports| imports.get(*to));
            ((*from).to_owned(), place.cloned().unwrap_or_default())
        });
        Self {
            parent: parent.clone(),
            imports: imports.collect(),
        }
    }

    fn full_name(&self, module: &str) -> String {
        let parents = self.parent.iter().map(String::as_str);
        parents.chain([module]).collect::<Vec<_>>().join("::")
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "import cycle ")?;
        for (module, _) in &self.imports {
            write!(f, "{} -> ", self.full_name(module))?;
        }
        if let Some((first, _)) = self.imports.first() {
            write!(f, "{}", self.full_name(first))?;
        }
        for (module, place) in &self.imports {
            write!(f, "\n    {module}: {place}")?;
        }
        Ok(())
    }
}
