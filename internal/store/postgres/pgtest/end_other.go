//go:build unix && !linux

package pgtest

import "syscall"

func endWithTest(*syscall.SysProcAttr) {}
