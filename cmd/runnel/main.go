// Command runnel is the server, the operator's tool and the virtual board, in
// one binary. Each subcommand has a file of its own; this one holds what they
// share: the root, the exit statuses and how an error is shown.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Exit statuses, kept stable for scripts.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2

	// How a rollout ended that was watched.
	exitReverted   = 3
	exitCancelled  = 4
	exitSuperseded = 5
	exitLeft       = 130 // it was left before it ended, as by SIGINT
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: tests call it with their own streams.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	showError(errOut, err)
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitFailed
}

// Help lists commands in the order of subcommands: as one comes to need them.
func init() { cobra.EnableCommandSorting = false }

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "runnel",
		Short: "Firmware over the air, in small verified chunks, straight to flash",
		Long: `Runnel moves firmware from a server into a microcontroller's flash, a verified
chunk at a time, in constant RAM.`,
		Example: `  runnel demo                              the whole story in one command
  runnel serve --data DIR                  start a server
  runnel keys init keys --product acme/pump
  runnel sign firmware.bin --product acme/pump --version 1.2.0 --sequence 1 --key keys/release.key -o pump.runnel
  runnel push pump.runnel
  runnel board new --flash board.bin       make a virtual board
  runnel board run --flash board.bin --id pump-7 --key-file pump-7.key --product acme/pump --root keys/root.pub`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v", err).withHint("see '%s --help'", cmd.CommandPath())
	})
	root.AddCommand(subcommands()...)
	return root
}

// usageError is a wrong call: exit status 2.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) *usageError {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

func (e *usageError) withHint(format string, args ...any) *usageError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// statusError is an end with an exit status of its own.
type statusError struct {
	status int
	msg    string
}

func (e *statusError) Error() string { return e.msg }

// asUsage is a mistake of the domain as one of usage.
func asUsage(err error) error {
	var e *fleet.Error
	if !errors.As(err, &e) {
		return usagef("%v", err)
	}
	return usagef("%s", e.Message).withHint("%s", e.Hint)
}

// hintedError is a failure with what to do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

func hinted(err error, format string, args ...any) error {
	return &hintedError{err: err, hint: fmt.Sprintf(format, args...)}
}

// noArgs and exactArgs are cobra's validators with our exit status and words.
func noArgs(cmd *cobra.Command, args []string) error { return exactArgs()(cmd, args) }

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)]).withHint("%s", hint)
		case len(args) > len(names) && len(names) == 0 && cmd.HasSubCommands():
			return usagef("no command %q", args[0]).withHint("%s", hint)
		case len(args) > len(names):
			return usagef("unexpected argument %q", args[len(names)]).withHint("%s", hint)
		}
		return nil
	}
}

// showError prints what went wrong, then what to do next where somebody knows.
func showError(w io.Writer, err error) {
	var hint string
	var u *usageError
	var h *hintedError
	var f *fleet.Error
	msg := err.Error()
	switch {
	case errors.As(err, &u):
		hint = u.hint
	case errors.As(err, &h):
		hint = h.hint
	case errors.As(err, &f) && f.Hint != "":
		hint = f.Hint
	case fleet.CodeOf(err) == fleet.CodeUnauthenticated:
		hint = "--token or RUNNEL_TOKEN; the server's first start wrote one to admin.token in its data folder"
	case errors.Is(err, os.ErrPermission):
		hint = "this user may not do that: name another file or folder, or change its mode"
	}
	fmt.Fprintf(w, "error: %s\n", msg)
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}
