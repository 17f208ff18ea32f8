"""The loopback Stripe of `signet.cli.demo.stripe_double`, in a process of its own."""
