package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

func newKeysRotateCmd() *cobra.Command {
	c := &listChange{}
	var keep []string
	var roots, m int
	var open bool
	cmd := &cobra.Command{
		Use:   "rotate DIR",
		Short: "Exchange root keys: the next generation",
		Long: `Makes new root keys (root-gN.key, N the new generation) and a list that names them.
As many of the old roots as had to sign so far must sign it, and as many of the new
ones as will have to. A device follows from one generation to the next, so the list
that begins each is kept as keylist-gN.cose, and a server keeps serving it.

A list has four signatures at most. Where old and new together need more, keep
some roots and exchange the rest: one that stays counts for both.`,
		Example: `  runnel keys rotate keys
  runnel keys rotate keys --keep keys/root-1.pub --keep keys/root-2.pub`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.begin(args[0]); err != nil {
				return err
			}
			old := c.held.List
			c.next.Generation++
			c.next.Roots = nil
			for _, k := range keep {
				public, err := onePublic(k)
				if err != nil {
					return err
				}
				if !old.IsRoot(public) || c.next.IsRoot(public) {
					return usagef("--keep %s: it is no root of the list, or is named twice", k)
				}
				c.next.Roots = append(c.next.Roots, public)
			}
			if !cmd.Flags().Changed("roots") {
				roots = len(old.Roots)
			}
			if cmd.Flags().Changed("m") {
				c.next.M = m
			}
			n := roots - len(keep)
			if roots > manifest.MaxRoots || n < 0 || c.next.M < 1 || c.next.M > min(roots, manifest.MaxSignatures) {
				return usagef("%d roots of which %d sign, %d of them kept: that does not add up", roots, c.next.M, len(keep))
			}
			if n == 0 && len(keep) == len(old.Roots) && c.next.M == old.M {
				return usagef("all roots are kept: nothing changes")
			}
			stays := min(len(keep), old.M, c.next.M)
			if need := old.M + c.next.M - stays; need > manifest.MaxSignatures {
				return usagef("%d signatures are needed, a list has %d at most", need, manifest.MaxSignatures).
					withHint("keep some roots with --keep, and exchange the others in a second step")
			}
			signers, err := c.rootSigners(cmd, c.next.IsRoot)
			if err != nil {
				return err
			}
			made, err := c.makeRoots(cmd, n, open)
			if err != nil {
				return err
			}
			return c.sign(cmd, fmt.Sprintf("generation %d: %d roots, %d of them new, %d sign", c.next.Generation, len(c.next.Roots), n, c.next.M),
				c.enough(signers, made))
		},
	}
	cmd.Flags().StringArrayVar(&keep, "keep", nil, "public `file` of a root that stays; may be repeated")
	cmd.Flags().IntVar(&roots, "roots", 0, "`number` of roots, with those that stay (default: as before)")
	cmd.Flags().IntVar(&m, "m", 0, "`number` of roots that must sign from now on (default: as before)")
	cmd.Flags().BoolVar(&open, "no-passphrase", false, "leave the new key files unencrypted")
	c.flags(cmd)
	return cmd
}

func (c *listChange) makeRoots(cmd *cobra.Command, n int, open bool) ([]release.Signer, error) {
	var secret []byte
	if n > 0 && !open {
		var err error
		if secret, err = c.get(cmd, true); err != nil {
			return nil, err
		}
	}
	var made []release.Signer
	for i := range n {
		stem := numbered(fmt.Sprintf("root-g%d", c.next.Generation), i, n)
		key, err := makeKey(c.dir, stem, secret)
		if err != nil {
			return nil, err
		}
		s := release.NewKeySigner(key)
		made = append(made, s)
		c.next.Roots = append(c.next.Roots, s.Public())
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s.key\n", release.KeyName(s.Public()), stem)
	}
	return made, nil
}

// enough adds new roots to the old ones until the new quorum is there too.
func (c *listChange) enough(old, made []release.Signer) []release.Signer {
	own := 0
	for _, s := range old {
		if c.next.IsRoot(s.Public()) {
			own++
		}
	}
	need := max(0, min(c.next.M-own, len(made)))
	return append(slices.Clip(old), made[:need]...)
}

func newKeysExportCmd() *cobra.Command {
	var format, out, pkg string
	cmd := &cobra.Command{
		Use:   "export DIR|FILE",
		Short: "Write the roots for a device's build: C, Go, its bytes, or PEM",
		Long: `Writes the roots of a key list in the form that a device is built with: as C header,
Go file or plain bytes, the trust store that docs/format/keylist.md describes (m,
generation and roots; no list yet), or as PEM, public keys only, for 'runnel verify
--root'. 'runnel board run --trust' takes the bytes.`,
		Example: "  runnel keys export keys --format c -o runnel_roots.h\n  runnel keys export keys --format pem -o roots.pem",
		Args:    exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "c" && format != "go" && format != "bin" && format != "pem" {
				return usagef("--format %q: it is c, go, bin or pem", format)
			}
			t, err := readList(listPath(args[0]))
			if err != nil {
				return err
			}
			text, err := exportRoots(t, format, pkg)
			if err != nil {
				return err
			}
			if out == "" || out == "-" {
				_, err := io.WriteString(cmd.OutOrStdout(), text)
				return err
			}
			return replaceFile(out, 0o644, func(f *os.File) error {
				_, err := f.WriteString(text)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`format`: c, go, bin or pem")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write (default: standard output)")
	cmd.Flags().StringVar(&pkg, "package", "main", "`name` of the Go file's package")
	return cmd
}

func exportRoots(t *release.Trust, format, pkg string) (string, error) {
	roots, err := release.TrustRoots(t.Generation, t.M, t.Roots...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	comment := func(mark string) {
		fmt.Fprintf(&b, "%s Roots of generation %d: %d of %d sign a key list.\n", mark, t.Generation, t.M, len(t.Roots))
		for _, r := range t.Roots {
			fmt.Fprintf(&b, "%s   %s  ed25519 %s\n", mark, release.KeyName(r), base64.StdEncoding.EncodeToString(r))
		}
	}
	store := roots.Baked()
	switch format {
	case "pem":
		p, err := release.PublicPEM(t.Roots...)
		return string(p), err
	case "bin":
		return string(store), nil
	case "go":
		fmt.Fprintf(&b, "// Code generated by runnel keys export; DO NOT EDIT.\n\npackage %s\n\n", pkg)
		comment("//")
		fmt.Fprintf(&b, "//\n// A trust store without a list, as docs/format/keylist.md has it.\nvar runnelRoots = [%d]byte{\n", len(store))
		b.WriteString(byteRows(store, "\t"))
		b.WriteString("}\n")
	default:
		b.WriteString("/* Generated by runnel keys export. */\n#ifndef RUNNEL_ROOTS_H\n#define RUNNEL_ROOTS_H\n\n")
		comment("//")
		fmt.Fprintf(&b, "// A trust store without a list, as docs/format/keylist.md has it.\nstatic const unsigned char runnel_roots[%d] = {\n", len(store))
		b.WriteString(byteRows(store, "    "))
		b.WriteString("};\n\n#endif\n")
	}
	return b.String(), nil
}

func byteRows(p []byte, indent string) string {
	var b strings.Builder
	for row := range slices.Chunk(p, 12) {
		b.WriteString(indent)
		for i, v := range row {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "0x%02x,", v)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
