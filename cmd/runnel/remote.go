package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// What the verbs that talk to a server share.

// remote is where the server is, and how answers are shown.
type remote struct {
	server, token string
	json          bool
}

func (r *remote) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&r.server, "server", "", "the server's `URL` (or RUNNEL_SERVER)")
	f.StringVar(&r.token, "token", "", "an operator's `token` (or RUNNEL_TOKEN, which other users of this machine can't see)")
	f.BoolVar(&r.json, "json", false, "print JSON instead of a table")
}

func (r *remote) client() (*client.Client, error) {
	server, token := r.server, r.token
	if server == "" {
		server = os.Getenv("RUNNEL_SERVER")
	}
	if token == "" {
		token = os.Getenv("RUNNEL_TOKEN")
	}
	if server == "" {
		return nil, usagef("no server is named").withHint("give --server URL or set RUNNEL_SERVER, e.g. http://127.0.0.1:8080")
	}
	if token == "" {
		return nil, usagef("no operator's token is given").
			withHint("give --token or set RUNNEL_TOKEN; the server's first start wrote one to admin.token in its data folder")
	}
	c, err := client.New(server, token)
	if err != nil {
		return nil, usagef("%q is not a server's URL", server).withHint("write it like http://127.0.0.1:8080")
	}
	return c, nil
}

// table prints rows in columns. Cells come from devices and operators: control
// characters are taken out where they are made (fleet.CleanText) and here again.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			cell = fleet.CleanText(cell, 200)
			if cell == "" {
				cell = "-"
			}
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func stampOrNever(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return stamp(*t)
}

func warn(cmd *cobra.Command, text string) {
	if text != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", text)
	}
}

// keyFlags are the two ways to give a key.
type keyFlags struct{ psk, file string }

func (k *keyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.psk, "psk", "", "the key, 64 `hex` digits; other users of this machine can see it, and the shell keeps it")
	cmd.Flags().StringVar(&k.file, "psk-file", "", "`file` with the key, 64 hex digits; - is standard input")
}

const maxKeyFile = 1024 // bytes

// read answers the key's digits, "" where none is given.
func (k *keyFlags) read(cmd *cobra.Command) (string, error) {
	text := k.psk
	switch {
	case cmd.Flags().Changed("psk") && cmd.Flags().Changed("psk-file"):
		return "", usagef("--psk and --psk-file exclude each other")
	case cmd.Flags().Changed("psk-file"):
		var err error
		if text, err = readKeyText(cmd, k.file); err != nil {
			return "", err
		}
	case !cmd.Flags().Changed("psk"):
		return "", nil
	}
	if _, err := hexKey(text); err != nil {
		return "", err
	}
	return text, nil
}

// readKeyText reads a key's digits from a file, or from standard input where it is -.
func readKeyText(cmd *cobra.Command, file string) (string, error) {
	in := io.Reader(bufio.NewReader(cmd.InOrStdin()))
	if file != "-" {
		f, err := os.Open(file)
		if errors.Is(err, os.ErrNotExist) {
			return "", hinted(fmt.Errorf("key file: %w", err), "make one with 'openssl rand -hex 32 > %s'", file)
		}
		if err != nil {
			return "", fmt.Errorf("key file: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// hexKey is a key of 32 bytes from its digits.
func hexKey(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return nil, usagef("the key is not 64 hex digits: it has %d characters", len(text)).withHint("make one with 'openssl rand -hex 32'")
	}
	return b, nil
}
