//go:build tinygo

package board

import "runtime/volatile"

var in, out volatile.Register32

// Input is a word that the compiler must load.
func Input() uint32 { return in.Get() }

// Output is a store that the compiler must keep.
func Output(v uint32) { out.Set(v) }
