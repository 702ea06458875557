"""From a card without power to APDUs: power, ATR, PPS, parameters, then exchanges."""
