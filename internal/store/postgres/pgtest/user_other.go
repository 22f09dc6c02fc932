//go:build !unix

package pgtest

import (
	"os"
	"os/exec"
)

var immediate = os.Kill

func give(...string) error { return nil }

func as(*exec.Cmd) {}
