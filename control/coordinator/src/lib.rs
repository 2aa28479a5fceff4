//! Which host owns which sandbox.
