//! The paths that a module's code names.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    ItemUse, UseTree,
    visit::{self, Visit},
};

/// A path in code, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) segments: Vec<String>,
    line: usize,
}

impl Reference {
    /// The file, line and text of the path.
    pub(super) fn place(&self, file: &str) -> String {
        format!("{file}:{} ({})", self.line, self.segments.join("::"))
    }
}

/// One name that a `use` declaration brings into scope.
#[derive(Debug, Clone)]
pub(super) struct Import {
    pub(super) segments: Vec<String>,
    /// `None` for a glob.
    pub(super) name: Option<String>,
    line: usize,
}

/// Every path in an item, its test code and its nested modules excluded.
pub(super) fn of_item(item: &syn::Item) -> Vec<Reference> {
    let mut collector = Collector::default();
    collector.visit_item(item);
    collector.references
}

/// Splits a `use` declaration into the names it imports.
pub(super) fn imports(item: &ItemUse) -> Vec<Import> {
    let mut imports = Vec::new();
    if item.leading_colon.is_none() {
        flatten(&item.tree, &mut Vec::new(), &mut imports);
    }
    imports
}

fn flatten(tree: &UseTree, prefix: &mut Vec<String>, imports: &mut Vec<Import>) {
    let (ident, name) = match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, imports);
            prefix.pop();
            return;
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, imports);
            }
            return;
        }
        UseTree::Glob(glob) => {
            imports.push(Import {
                segments: prefix.clone(),
                name: None,
                line: glob.star_token.spans[0].start().line,
            });
            return;
        }
        UseTree::Name(name) => (&name.ident, &name.ident),
        UseTree::Rename(rename) => (&rename.ident, &rename.rename),
    };
    let mut segments = prefix.clone();
    // `use a::b::{self}` imports `b`.
    if ident != "self" || prefix.is_empty() {
        segments.push(ident.to_string());
    }
    let name = if name == "self" {
        segments.last().cloned()
    } else {
        Some(name.to_string())
    };
    imports.push(Import {
        segments,
        name,
        line: ident.span().start().line,
    });
}

/// Returns whether an item is compiled for tests only.
pub(super) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let (mut test, mut not) = (false, false);
            find_cfg(list.tokens.clone(), &mut test, &mut not);
            test && !not
        }
        meta => {
            let last = meta.path().segments.last();
            last.is_some_and(|segment| segment.ident == "test")
        }
    })
}

fn find_cfg(tokens: TokenStream, test: &mut bool, not: &mut bool) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                *test |= ident == "test";
                *not |= ident == "not";
            }
            TokenTree::Group(group) => find_cfg(group.stream(), test, not),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[derive(Default)]
struct Collector {
    references: Vec<Reference>,
}

impl Collector {
    fn add(&mut self, segments: Vec<String>, span: Span) {
        self.references.push(Reference {
            segments,
            line: span.start().line,
        });
    }

    /// Finds `a::b::c` in the tokens of a macro call or an attribute.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<proc_macro2::Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.finish(&mut path);
                    }
                    path.push(ident);
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.finish(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        self.finish(&mut path);
    }

    fn finish(&mut self, path: &mut Vec<proc_macro2::Ident>) {
        if let [first, _, ..] = path.as_slice() {
            let span = first.span();
            self.add(path.iter().map(ToString::to_string).collect(), span);
        }
        path.clear();
    }

    /// Finds paths in the string literals of an attribute, such as `#[serde(with = "crate::hex")]`.
    fn scan_literals(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.scan_literals(group.stream()),
                TokenTree::Literal(literal) => {
                    let span = literal.span();
                    let path = syn::parse_str::<syn::LitStr>(&literal.to_string())
                        .and_then(|literal| literal.parse::<syn::Path>());
                    if let Ok(path) = path {
                        self.add(segments(&path), span);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect()
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for import in imports(item) {
            self.references.push(Reference {
                segments: import.segments,
                line: import.line,
            });
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let (None, Some(first)) = (path.leading_colon, path.segments.first()) {
            self.add(segments(path), first.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.scan(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
            self.scan_literals(list.tokens.clone());
        }
    }
}

/// The attributes of the items that can be compiled for tests only.
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
