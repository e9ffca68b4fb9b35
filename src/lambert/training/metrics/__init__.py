"""What is measured beside training: journal events, throughput, spikes, gradient noise."""
