//! The module tree of a crate, and the resolution of paths in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    RustFile,
    references::{self, Import, Reference},
};

/// Names of a module and its parents, from the crate root; the root itself is empty.
pub(super) type ModulePath = Vec<String>;

/// The most re-exports that a path may pass. Re-exports can form a loop that no path of valid code enters.
const MAX_REEXPORTS: usize = 16;

/// The modules of one library or program, without those for tests.
#[derive(Debug, Default)]
pub(super) struct Modules {
    modules: BTreeMap<ModulePath, Module>,
}

/// One module, in a file of its own or inline.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: String,
    pub(super) references: Vec<Reference>,
    /// The names that its `use` declarations import, private ones included, because children can use those.
    imports: Vec<Import>,
    /// Names of the items it defines.
    items: BTreeSet<String>,
}

impl Modules {
    /// Reads a crate from its root file.
    pub(super) fn read(root: &str, sources: &[RustFile<'_>]) -> Self {
        let mut reader = Reader {
            sources,
            modules: Self::default(),
        };
        reader.read_file(Vec::new(), root, &parent_dir(root));
        reader.modules
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ModulePath, &Module)> {
        self.modules.iter()
    }

    /// The module that defines the target of a path in module `from`; `None` if that is in another crate.
    pub(super) fn resolve(&self, from: &ModulePath, segments: &[String]) -> Option<ModulePath> {
        self.resolve_within(from, segments, MAX_REEXPORTS)
    }

    fn resolve_within(
        &self,
        from: &ModulePath,
        segments: &[String],
        reexports: usize,
    ) -> Option<ModulePath> {
        let mut start = from.clone();
        let mut rest = segments;
        match segments.first()?.as_str() {
            "crate" => {
                start.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            // Only a name that the module itself declares as a module or imports can lead elsewhere in this crate.
            first => {
                let module = self.modules.get(from)?;
                let is_import = module.import(first).is_some();
                if !is_import && !self.modules.contains_key(&child(from, first)) {
                    return None;
                }
            }
        }
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            start.pop();
            rest = after;
        }
        self.descend(start, rest, reexports)
    }

    /// Follows `segments` from a module through its children and imports, as deep as they go.
    fn descend(
        &self,
        mut at: ModulePath,
        segments: &[String],
        reexports: usize,
    ) -> Option<ModulePath> {
        for (index, name) in segments.iter().enumerate() {
            let below = child(&at, name);
            if self.modules.contains_key(&below) {
                at = below;
                continue;
            }
            let rest = &segments[index + 1..];
            return self.follow_import(&at, name, rest, reexports).or(Some(at));
        }
        Some(at)
    }

    /// Resolves `name::rest` if the module imports `name`.
    fn follow_import(
        &self,
        at: &ModulePath,
        name: &str,
        rest: &[String],
        reexports: usize,
    ) -> Option<ModulePath> {
        let reexports = reexports.checked_sub(1)?;
        let module = self.modules.get(at)?;
        if let Some(import) = module.import(name) {
            let path = [&import.segments, rest].concat();
            return self.resolve_within(at, &path, reexports);
        }
        if module.items.contains(name) {
            return None;
        }
        let globs = module.imports.iter().filter(|import| import.name.is_none());
        globs
            .filter_map(|glob| self.resolve_within(at, &glob.segments, reexports))
            .find(|target| self.declares(target, name))
            .and_then(|target| {
                let path = [&[name.to_owned()], rest].concat();
                self.descend(target, &path, reexports)
            })
    }

    /// Returns whether a module defines, declares or imports `name`.
    fn declares(&self, at: &ModulePath, name: &str) -> bool {
        self.modules.get(at).is_some_and(|module| {
            module.items.contains(name)
                || module.import(name).is_some()
                || self.modules.contains_key(&child(at, name))
        })
    }
}

impl Module {
    fn import(&self, name: &str) -> Option<&Import> {
        self.imports
            .iter()
            .find(|import| import.name.as_deref() == Some(name))
    }
}

struct Reader<'a> {
    sources: &'a [RustFile<'a>],
    modules: Modules,
}

impl Reader<'_> {
    /// Reads a file as module `path`, whose children are in `children_dir`.
    fn read_file(&mut self, path: ModulePath, file: &str, children_dir: &str) {
        if let Some(source) = self.sources.iter().find(|source| source.path == file) {
            self.read_items(path, file, children_dir, &source.syntax.items);
        }
    }

    fn read_items(&mut self, path: ModulePath, file: &str, dir: &str, items: &[syn::Item]) {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items {
            match item {
                syn::Item::Mod(item) if !references::is_test(&item.attrs) => {
                    self.read_child(&path, file, dir, item);
                }
                syn::Item::Use(item) if !references::is_test(&item.attrs) => {
                    module.imports.extend(references::imports(item));
                }
                _ => module.items.extend(item_name(item)),
            }
            module.references.extend(references::of_item(item));
        }
        self.modules.modules.insert(path, module);
    }

    fn read_child(&mut self, parent: &ModulePath, file: &str, dir: &str, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        let path = child(parent, &name);
        let child_dir = format!("{dir}/{name}");
        match &item.content {
            Some((_, items)) => self.read_items(path, file, &child_dir, items),
            None => self.read_file(path, &format!("{child_dir}.rs"), &child_dir),
        }
    }
}

fn item_name(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn child(parent: &ModulePath, name: &str) -> ModulePath {
    let mut path = parent.clone();
    path.push(name.to_owned());
    path
}

fn parent_dir(file: &str) -> String {
    file.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned()
}
