// Watches what the kernel reports while it runs: which vats there are, which died and of what, and things that leave no
// trace in the database.

export const makeWatch = () => {
  const vats = new Map(); // name -> { vatID, dynamic, manager }
  const failed = []; // deliveries that the kernel rewound because their vat failed in them
  const terminations = new Map(); // vatID -> why
  const counts = { deliveries: 0, consoleInDelivery: 0 };
  let current;

  const onEvent = {
    'create-vat': ({ name, vatID, dynamic, managerType }) => {
      vats.set(name, { vatID, kind: dynamic ? 'dynamic' : 'static', manager: managerType });
    },
    deliver: ({ vatID, deliveryNum, dispatch }) => {
      counts.deliveries += 1;
      current = { vatID, position: Number(deliveryNum), delivery: dispatch };
    },
    'deliver-result': ({ dr }) => {
      if (dr[0] !== 'ok') failed.push({ ...current, problem: dr[1] });
    },
    terminate: ({ vatID, shouldReject, info }) => {
      terminations.set(vatID, { ...current, rewound: shouldReject, why: info.body });
    },
    console: ({ source, state }) => {
      if (source === 'vat' && state === 'delivery') counts.consoleInDelivery += 1;
    },
  };
  return {
    slogSender: event => onEvent[event.type]?.(event),
    vat: name => vats.get(name),
    vats: () => vats,
    failed: () => failed,
    termination: vatID => terminations.get(vatID),
    counts: () => counts,
  };
};
