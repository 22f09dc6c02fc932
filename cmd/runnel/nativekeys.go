package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// nativeKeyFlags are the two ways to give a device a secret for the native wire.
type nativeKeyFlags struct {
	file string // with one that there is
	make bool
	out  string // where one that is made is written
}

func (k *nativeKeyFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.file, "native-key-file", "", "`file` with the native key, 64 hex digits; - is standard input")
	f.BoolVar(&k.make, "new-native-key", false, "make a native key, and write it to the file that -o names")
	f.StringVarP(&k.out, "out", "o", "", "`file` for the key that is made; it must not exist")
}

// use calls f with the secret, "" where none is wanted. One that is made is in its
// file before anybody hears of it: a key that the server has and nobody else is of
// no use. Where f fails the file goes again.
func (k *nativeKeyFlags) use(cmd *cobra.Command, f func(secret string) error) (secret string, err error) {
	switch {
	case k.make && k.file != "":
		return "", usagef("--new-native-key and --native-key-file exclude each other")
	case k.make && k.out == "":
		return "", usagef("-o is missing").withHint("name the file for the new key: it is shown nowhere else")
	case !k.make && k.out != "":
		return "", usagef("-o is for a key that is made: give --new-native-key too")
	case k.file != "":
		if secret, err = readKeyFile(cmd, k.file); err != nil {
			return "", err
		}
		return secret, f(secret)
	case !k.make:
		return "", f("")
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	secret = hex.EncodeToString(b[:])
	return secret, writeSecretAnd(k.out, secret, func() error { return f(secret) })
}

// writeSecret makes a file that only this user can read, and has it on the disk. One
// that exists is not written over: it may be the only copy of another key.
func writeSecret(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hinted(fmt.Errorf("%s exists", path), "name another file, or move that one away")
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text+"\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func newRotateKeyCmd(r *remote) *cobra.Command {
	var key nativeKeyFlags
	cmd := &cobra.Command{
		Use:     "rotate-key ID",
		Example: "  runnel devices rotate-key pump-7 -o pump-7.next.key\n  runnel devices rotate-key pump-7 --native-key-file pump-7.next.key",
		Short:   "Give a device its next native key",
		Long: `Gives a device one more secret for the native wire, under the next number; a v1
device gets its first, number 0. Bring the key and the number to the device: the keys
before live until it polls with the new one, and are forgotten then. Of more than four
the oldest, which is in use, and the newest stay.

Without --native-key-file a key is made and written to the file that -o names (64 hex
digits, mode 0600), the only place where it is ever shown.

--json prints {"device","key_number","file"}; no key is in it.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key.make = key.file == ""
			c, err := r.client()
			if err != nil {
				return err
			}
			var n int
			if _, err = key.use(cmd, func(secret string) (err error) {
				n, err = c.AddNativeKey(cmd.Context(), args[0], secret)
				return err
			}); err != nil {
				return deviceError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"device": args[0], "key_number": n, "file": key.out})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "native key %d of %s lives", n, args[0])
			if key.out != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "; it is in %s", key.out)
			}
			fmt.Fprintln(cmd.OutOrStdout())
			return nil
		},
	}
	key.flags(cmd)
	_ = cmd.Flags().MarkHidden("new-native-key") // it is what is done without a file
	return cmd
}

func newApproveCmd(r *remote) *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:     "approve ID",
		Example: "  runnel devices approve pump-7\n  runnel devices approve pump-7 --enrol-token line-3 --json",
		Short:   "Let a device in that came with a token and waits",
		Long: `Approves the request of a device that waits ('runnel tokens' lists them). It is known
from its next request on.

--json prints {"device","token","hardware","status","time"}.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			e, err := c.Approve(cmd.Context(), args[0], token)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), e)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "approved %s, which came with token %s and says that it is %s\n", e.Device, e.Token, e.Hardware)
			return nil
		},
	}
	cmd.Flags().StringVar(&token, "enrol-token", "", "the `id` of the token by which it waits; needed where there are several")
	return cmd
}
