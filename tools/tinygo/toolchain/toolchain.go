//go:build tools

// Package toolchain pins the TinyGo compiler. "go install pkg@version" asks the
// module proxy for a list of versions that it does not have for TinyGo; a
// requirement with an exact version does not.
package toolchain

import _ "github.com/tinygo-org/tinygo"
