package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/runnel-fota/runnel/release"
)

// What the verbs that sign share: passphrases, signers, the last question.

// passphrases finds the passphrase of key files; it is asked for once.
type passphrases struct {
	file string
	text []byte
}

func (p *passphrases) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "passphrase-file", "", "`file` with the keys' passphrase in its first line (or RUNNEL_PASSPHRASE)")
}

const maxPassphrase = 1024 // bytes

// get answers the passphrase: from the file, the environment, or the terminal,
// where twice asks for it a second time, for keys that are being made.
func (p *passphrases) get(cmd *cobra.Command, twice bool) ([]byte, error) {
	if len(p.text) > 0 {
		return p.text, nil
	}
	text := []byte(os.Getenv("RUNNEL_PASSPHRASE"))
	switch {
	case p.file != "":
		f, err := os.Open(p.file)
		if err != nil {
			return nil, fmt.Errorf("passphrase file: %w", err)
		}
		defer f.Close()
		if text, err = io.ReadAll(io.LimitReader(f, maxPassphrase)); err != nil {
			return nil, fmt.Errorf("passphrase file: %w", err)
		}
		text, _, _ = bytes.Cut(text, []byte("\n"))
		text = bytes.TrimSuffix(text, []byte("\r"))
	case len(text) == 0:
		var err error
		if text, err = askPassphrase(cmd, "passphrase: "); err != nil {
			return nil, err
		}
		if twice {
			again, err := askPassphrase(cmd, "the same again: ")
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(text, again) {
				return nil, errors.New("the two are not the same")
			}
		}
	}
	if len(text) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	p.text = text
	return text, nil
}

func askPassphrase(cmd *cobra.Command, prompt string) ([]byte, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !xterm.IsTerminal(int(in.Fd())) {
		return nil, usagef("a passphrase is needed, and there is no terminal to ask on").
			withHint("give --passphrase-file FILE or set RUNNEL_PASSPHRASE; 'keys init' also knows --no-passphrase")
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	text, err := xterm.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	return text, err
}

// openKey reads a key file and says what to do where it can't be.
func (p *passphrases) openKey(cmd *cobra.Command, path string) (ed25519.PrivateKey, error) {
	read := func() (ed25519.PrivateKey, error) {
		return release.ReadKey(path, func() ([]byte, error) { return p.get(cmd, false) })
	}
	known := len(p.text) > 0
	key, err := read()
	if known && errors.Is(err, release.ErrPassphrase) {
		p.text = nil // it was another key's
		key, err = read()
	}
	switch {
	case errors.Is(err, release.ErrOpenKey):
		return nil, hinted(err, "take their right away: chmod 600 %s", path)
	case errors.Is(err, release.ErrPassphrase):
		p.text = nil
		return nil, hinted(err, "it comes from --passphrase-file, RUNNEL_PASSPHRASE or the terminal")
	}
	return key, err
}

// signerFlags are the ways to give one key that signs.
type signerFlags struct {
	passphrases
	key, command, public string
}

func (f *signerFlags) flags(cmd *cobra.Command, what string) {
	f.passphrases.flags(cmd)
	cmd.Flags().StringVar(&f.key, "key", "", "`file` of "+what)
	cmd.Flags().StringVar(&f.command, "signer", "", "`command` that signs instead: the message on its standard input, the signature's 64 bytes or 128 hex digits on its output")
	cmd.Flags().StringVar(&f.public, "signer-pub", "", "`file` with the public key of --signer")
}

func (f *signerFlags) signer(cmd *cobra.Command) (release.Signer, error) {
	switch {
	case f.key != "" && f.command != "":
		return nil, usagef("--key and --signer exclude each other")
	case f.command != "" && f.public == "":
		return nil, usagef("--signer-pub is missing").withHint("the signature is checked with the command's public key, in PEM")
	case f.command == "" && f.public != "":
		return nil, usagef("--signer-pub belongs to --signer")
	case f.key == "" && f.command == "":
		return nil, usagef("--key is missing").withHint("name the file of the key, or a --signer")
	case f.command != "":
		public, err := onePublic(f.public)
		if err != nil {
			return nil, err
		}
		return release.NewCommandSigner(f.command, public, cmd.ErrOrStderr()), nil
	}
	key, err := f.openKey(cmd, f.key)
	if err != nil {
		return nil, err
	}
	return release.NewKeySigner(key), nil
}

func onePublic(path string) (ed25519.PublicKey, error) {
	keys, err := release.ReadPublic(path)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("%s holds %d public keys: one is expected", path, len(keys))
	}
	return keys[0], nil
}

// confirmed asks a person. Without a terminal nobody can answer: --yes is needed.
func confirmed(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !xterm.IsTerminal(int(in.Fd())) {
		return usagef("there is no terminal to ask on").withHint("look at what is above, then give --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s (y/N) ", question)
	line, _ := bufio.NewReader(in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("not done: the answer was no")
	}
	return nil
}

// replaceFile writes a file so that it is there whole or not at all: into a
// temporary file beside it, flushed, then renamed.
func replaceFile(path string, mode os.FileMode, write func(f *os.File) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	if d, e := os.Open(dir); e == nil {
		d.Sync() // not every file system can; the file itself is flushed
		d.Close()
	}
	return nil
}
