package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

// rotateFlags are of one half of a rotation.
type rotateFlags struct {
	ramFlags
	out                        keyOutput
	verify, finish, force, yes bool
	keep                       string
}

func (c *ctl) ramRotate() *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate --user U (--out FILE | --finish)",
		Short: "Replace the access key of a RAM user, in two steps",
		Long: `Replace the access key of a RAM user. Without --finish a second key is made and
written; both work until the daemon has the new one. With --finish the old key is
deactivated and deleted. RAM allows a user two keys, so one rotation ends before the
next begins.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.finish {
				return c.finishRotation(cmd.Context(), &f)
			}
			return c.beginRotation(cmd.Context(), &f)
		},
	}
	f.add(cmd)
	f.out.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.verify, "verify", false, "ask STS with the new key before it is written")
	flags.BoolVar(&f.finish, "finish", false, "delete the old key")
	flags.StringVar(&f.keep, "keep", "", "with --finish: ID of the key that stays (default: the younger one)")
	flags.BoolVar(&f.force, "force", false, "with --finish: even if RAM has not seen the key that stays in use last")
	flags.BoolVar(&f.yes, "yes", false, "with --finish: do not ask")
	return cmd
}

// verifyTimeout is how long a new key may need to be known everywhere.
const verifyTimeout = 30 * time.Second

func (c *ctl) beginRotation(ctx context.Context, f *rotateFlags) error {
	if f.keep != "" || f.force || f.yes {
		return usagef("--keep, --force and --yes go with --finish")
	}
	if err := f.out.check(); err != nil {
		return err
	}
	return f.withRAM(func(cloud *ram.Client) error {
		slot, err := f.out.reserve(ctx)
		if err != nil {
			return err
		}
		defer slot.abandon()
		old, made, err := cloud.Rotate(ctx, f.user, func(ctx context.Context, key kmsapi.Credentials) error {
			if f.verify {
				known, cancel := context.WithTimeout(ctx, verifyTimeout)
				defer cancel()
				if err := ram.Probe(known, f.endpoint, nil, key); err != nil {
					return fmt.Errorf("the new key does not work: %w", err)
				}
			}
			return slot.deliver(ctx, key)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stderr, "Next: %s.\nThen: kmsbrokerctl ram rotate --finish --user %s --admin-credentials FILE\n", f.out.howToSwitch(), f.user)
		if c.output == "json" {
			return c.writeFields(map[string]any{"user": f.user, "access_key_id": made, "old_access_key_id": old.ID, "out": f.out.path})
		}
		return c.fields("User", f.user, "New access key", made, "Written to", f.out.path, "Old access key", old.String())
	})
}

func (c *ctl) finishRotation(ctx context.Context, f *rotateFlags) error {
	if f.verify || f.out != (keyOutput{}) {
		return usagef("--out, --systemd-credential and --verify do not go with --finish, which makes no key")
	}
	return f.withRAM(func(cloud *ram.Client) error {
		r, due, err := cloud.PlanFinish(ctx, f.user, f.keep)
		switch {
		case err != nil:
			return err
		case !due:
			fmt.Fprintf(c.stderr, "user %s does not have two access keys, nothing is to be finished\n", f.user)
			return c.rotationFinished(f.user, r)
		case !r.Switched() && !f.force:
			return fmt.Errorf("RAM has not seen access key %v in use after %v: switch kmsbrokerd to it first; "+
				"RAM learns of a use with some delay, and --force does not wait for it", r.Keep, r.Remove)
		}
		if err := c.confirm(ctx, "user", f.user, fmt.Sprintf("its access key %v will be deleted, and %v stays", r.Remove, r.Keep), f.yes); err != nil {
			return err
		}
		if err := cloud.FinishRotation(ctx, f.user, r); err != nil {
			return err
		}
		return c.rotationFinished(f.user, r)
	})
}

func (c *ctl) rotationFinished(user string, r ram.Rotation) error {
	if c.output == "json" {
		return c.writeFields(map[string]any{"user": user, "kept": r.Keep.ID, "removed": r.Remove.ID})
	}
	return c.fields("User", user, "Kept", r.Keep.ID, "Removed", r.Remove.ID)
}
