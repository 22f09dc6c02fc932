//go:build tinygo

package chiptest

import (
	"device/arm"
	"runtime"
	"testing"
	"unsafe"
)

// file is the block of arguments of a call: a handle or a name, a buffer, a length.
type file struct{ first, second, third uintptr }

func (f *file) call(operation int) int {
	return arm.SemihostingCall(operation, uintptr(unsafe.Pointer(f)))
}

// Read reads a file of the host; a path counts from the emulator's working folder,
// which is that of the package under test. FailNow does not end a test here: a file
// that is missing ends the program.
func Read(t testing.TB, path string) []byte {
	const binary = 1 // "rb"
	name := append([]byte(path), 0)
	f := file{uintptr(unsafe.Pointer(&name[0])), binary, uintptr(len(path))}
	handle := f.call(arm.SemihostingOpen)
	if handle < 0 {
		panic("chiptest: no file " + path)
	}
	f = file{first: uintptr(handle)}
	size := f.call(arm.SemihostingFileLen)
	if size <= 0 {
		panic("chiptest: no length of " + path)
	}
	p := make([]byte, size)
	f = file{uintptr(handle), uintptr(unsafe.Pointer(&p[0])), uintptr(size)}
	if left := f.call(arm.SemihostingRead); left != 0 {
		panic("chiptest: a part of " + path + " can't be read")
	}
	f = file{first: uintptr(handle)}
	f.call(arm.SemihostingClose)
	return p
}

// Allocs is how often f allocates, the mean of some runs. (TinyGo's
// testing.AllocsPerRun counts nothing.)
func Allocs(runs int, f func()) float64 {
	var before, after runtime.MemStats
	f()
	runtime.ReadMemStats(&before)
	for i := 0; i < runs; i++ {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(runs)
}
