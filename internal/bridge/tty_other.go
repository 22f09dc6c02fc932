//go:build !linux || ppc64 || ppc64le

package bridge

import (
	"fmt"
	"io"
)

// openTTY: setting a serial device up is written for Linux only.
func openTTY(path string, _ int) (io.ReadWriteCloser, error) {
	return nil, fmt.Errorf("%s: %w that this build can set up: it knows Linux's. Use tcp:HOST:PORT with a program that has the device, such as socat or ser2net", path, ErrLine)
}
