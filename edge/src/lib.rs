//! Names the sandbox a request is for, checks its token, carries its bytes.
