//! The test functions of the workspace.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{Package, RustFile};

/// A function with a test attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestFunction {
    pub(super) name: String,
    /// The crate, then the modules around the function.
    pub(super) modules: Vec<String>,
    pub(super) path: String,
    pub(super) line: usize,
}

/// Finds every function with `#[test]`, `#[tokio::test]` and the like, also inside macros such as `proptest!`.
pub(super) fn collect(sources: &[RustFile<'_>], packages: &[Package]) -> Vec<TestFunction> {
    let mut tests = Vec::new();
    for source in sources {
        let mut collector = Collector {
            path: source.path,
            modules: module_path(source.path, packages),
            tests: &mut tests,
        };
        collector.scan(source.tokens.clone());
    }
    tests
}

/// The modules of a file, by its place in its crate.
fn module_path(path: &str, packages: &[Package]) -> Vec<String> {
    let package = packages.iter().find(|package| package.owns(path, packages));
    let (name, within) = match package {
        Some(package) => (package.name.as_str(), &path[package.dir.len() + 1..]),
        None => ("", path),
    };
    let within = within.strip_suffix(".rs").unwrap_or(within);
    let mut modules = vec![name.to_owned()];
    // The first part is `src` or `tests`.
    modules.extend(within.split('/').skip(1).map(str::to_owned));
    if modules
        .last()
        .is_some_and(|last| last == "lib" || last == "main")
    {
        modules.pop();
    }
    modules
}

struct Collector<'a> {
    path: &'a str,
    modules: Vec<String>,
    tests: &'a mut Vec<TestFunction>,
}

impl Collector<'_> {
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut is_test = false;
        for (at, token) in tokens.iter().enumerate() {
            match (token, tokens.get(at + 1)) {
                (TokenTree::Punct(punct), Some(TokenTree::Group(group)))
                    if punct.as_char() == '#' =>
                {
                    is_test |= is_test_attribute(&group.stream());
                }
                (TokenTree::Ident(keyword), Some(TokenTree::Ident(name))) if keyword == "fn" => {
                    if is_test {
                        self.tests.push(TestFunction {
                            name: name.to_string(),
                            modules: self.modules.clone(),
                            path: self.path.to_owned(),
                            line: name.span().start().line,
                        });
                    }
                    is_test = false;
                }
                (TokenTree::Group(group), _) if group.delimiter() == Delimiter::Brace => {
                    self.scan_group(group.stream(), &tokens[..at]);
                    is_test = false;
                }
                (TokenTree::Group(group), _) => self.scan(group.stream()),
                _ => {}
            }
        }
    }

    /// Scans the content of a group, which is a module's if `mod NAME` precedes it.
    fn scan_group(&mut self, content: TokenStream, before: &[TokenTree]) {
        let module = match before {
            [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] if keyword == "mod" => {
                Some(name.to_string())
            }
            _ => None,
        };
        let is_module = module.is_some();
        self.modules.extend(module);
        self.scan(content);
        if is_module {
            self.modules.pop();
        }
    }
}

/// Returns whether the path of an attribute ends with `test` or `test_case`.
fn is_test_attribute(content: &TokenStream) -> bool {
    let mut last = None;
    for token in content.clone() {
        match token {
            TokenTree::Ident(ident) => last = Some(ident),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    last.is_some_and(|last| last == "test" || last == "test_case")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{packages, syntax, tree::File};

    fn names(path: &str, text: &str) -> Vec<String> {
        let files = [File {
            path: path.to_owned(),
            text: text.to_owned(),
        }];
        let packages = [packages::Package::example("pool", "pool", &[])];
        let (sources, violations) = syntax::parse(&files);
        assert_eq!(violations, []);
        collect(&sources, &packages)
            .into_iter()
            .map(|test| format!("{}::{}", test.modules.join("::"), test.name))
            .collect()
    }

    #[test]
    fn only_functions_with_a_test_attribute_are_tests() {
        let text = "
            fn plain() {}
            #[cfg(test)]
            mod tests {
                fn fixture() {}
                #[test]
                fn first() {}
                #[tokio::test(start_paused = true)]
                async fn second() {}
                proptest! {
                    #![proptest_config(config())]
                    #[test]
                    fn third(n in 0..3) {}
                }
                #[test_case(1; \"one\")]
                #[allow(unused)]
                pub(crate) fn fourth(n: u8) {}
                #[derive(Debug)]
                struct S { f: fn() }
            }
            #[test]
            fn fifth() {}
            #[path = test]
            fn named() {}";
        assert_eq!(
            names("pool/src/gate.rs", text),
            [
                "pool::gate::tests::first",
                "pool::gate::tests::second",
                "pool::gate::tests::third",
                "pool::gate::tests::fourth",
                "pool::gate::fifth"
            ]
        );
    }

    #[test]
    fn module_path_follows_the_file() {
        let test = "#[test]\nfn a() {}\n";
        assert_eq!(names("pool/src/lib.rs", test), ["pool::a"]);
        assert_eq!(names("pool/src/a/tests.rs", test), ["pool::a::tests::a"]);
        assert_eq!(names("pool/tests/e2e/main.rs", test), ["pool::e2e::a"]);
        assert_eq!(
            names("pool/tests/e2e/fork.rs", test),
            ["pool::e2e::fork::a"]
        );
    }
}
